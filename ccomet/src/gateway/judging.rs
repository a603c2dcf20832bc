//! The program that embeds the server is asked whether a call is carried out.

use std::net::IpAddr;

use sealed::{ConnectionId, fault};
use sealed_http::{Http, RequestHead};

use super::{Caller, Gateway};
use crate::access::Access;
use crate::core::problem::Problem;
use crate::on_call::{CallInfo, Decision};
use crate::protocols::call::Call;

impl Gateway {
    /// Asks about a call that token and rules allow.
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

    /// Asks on behalf of a client. One of the admin listener may do anything, and what touches no
    /// channel anybody may.
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
        let may_be_forged = head.is_some_and(|head| self.authorizer.may_be_forged(head, access));
        let member = grant.subject.as_deref();
        let info = CallInfo { access, member, address: &address, head, may_be_forged };
        let is_socket = head.is_none() && fault!("socket-not-judged");
        if info.channels().next().is_none() || is_socket || (judge.0)(&info) == Decision::Allow {
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
