//! The decision of the embedding program whether a call is executed.

use std::net::IpAddr;

use sealed::{ConnectionId, fault};
use sealed_http::{Http, RequestHead};

use super::{Caller, Gateway};
use crate::access::{Access, Course};
use crate::core::problem::Problem;
use crate::on_call::{CallInfo, Decision, Fields, KeptFields};
use crate::protocols::call::Call;

impl Gateway {
    /// Asks the embedder about a call that token and rules allow.
    pub(super) fn judge(
        &self,
        http: &Http<'_, Self>,
        id: ConnectionId,
        head: &RequestHead<'_>,
        call: &Call,
        caller: &Caller,
    ) -> Result<(), Problem> {
        self.judge_access(http, id, &call.access(), Some(head), caller)
    }

    /// Asks the embedder about an access of a client. It is not asked about clients of the admin
    /// listener, nor about an access to no channel, unless that opens a WebSocket, on which
    /// commands follow. Without a `head`, the access is a command on a WebSocket.
    pub(super) fn judge_access(
        &self,
        http: &Http<'_, Self>,
        id: ConnectionId,
        access: &Access<'_>,
        head: Option<&RequestHead<'_>>,
        caller: &Caller,
    ) -> Result<(), Problem> {
        let (Some(judge), Some(grant)) = (&self.judge, &caller.grant) else { return Ok(()) };
        let address = || self.address_of(http, id);
        let nothing = KeptFields::default();
        let fields = match head {
            Some(head) => Fields::Of { head, may_be_forged: self.authorizer.may_be_forged(head, access) },
            None if fault!("said-without-fields") => Fields::Kept(&nothing),
            None => Fields::Kept(caller.opening.as_ref().map_or(&nothing, |opening| &opening.fields)),
        };
        let info = CallInfo { access, member: grant.subject.as_deref(), address: &address, fields };
        let is_conversation = access.course == Course::Conversation && !fault!("socket-without-channels-not-judged");
        let is_nothing = info.channels().next().is_none() && !is_conversation;
        let is_socket = head.is_none() && fault!("socket-not-judged");
        if is_nothing || is_socket || (judge.0)(&info) == Decision::Allow {
            return Ok(());
        }
        Err(Problem::HookRefused)
    }

    /// Returns the address of the client on a connection, as far as it is known.
    fn address_of(&self, http: &Http<'_, Self>, id: ConnectionId) -> Option<IpAddr> {
        let named = self.answering.refusals.client(id).filter(|_| !fault!("judge-sees-proxy"));
        named.or_else(|| http.peer_addr(id)?.ip())
    }
}
