//! Reports to the site's back end of members that join and leave.

use std::sync::Arc;
use std::time::Duration;

use sealed_http::Http;
use sealed_http::client::Fetched;

use super::hooks::Sent;
use super::{Chore, Gateway, unix_time};
use crate::core::message::{ChannelName, Movement};
use crate::webhooks::Report;

/// The state of the reports to the back end.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Reporting {
    #[default]
    Idle,
    /// A request is in transit.
    UnderWay,
    /// The last report failed: the next one waits for a timer.
    Resting,
}

impl Gateway {
    /// Notes a join or leave of a member in a channel on this loop's shard.
    pub(super) fn note_movement(
        &mut self,
        http: &Http<'_, Self>,
        channel: ChannelName,
        id: Arc<str>,
        movement: Movement,
    ) {
        if self.site.is_there()
            && self.config.hooks.concern(&channel)
            && !self.site.movements.push(channel, id, movement, unix_time(http))
        {
            tracing::warn!("joins and leaves are not reported to the back end: too many are waiting");
        }
    }

    /// Sends the back end the next report, unless one is in transit.
    pub(super) fn tell_site(&mut self, http: &mut Http<'_, Self>) {
        if self.site.reporting == Reporting::Resting {
            return;
        }
        if let Some(body) = self.site.movements.next()
            && let Some(fetch) = self.send_to_site(http, body)
        {
            self.site.reporting = Reporting::UnderWay;
            self.site.fetches.insert(fetch, Sent::Movements);
        }
    }

    /// Handles the result of a report. Any success status is an acknowledgement.
    pub(super) fn report_ended(&mut self, http: &mut Http<'_, Self>, fetched: &Fetched<'_>) {
        self.site.reporting = Reporting::Idle;
        let is_received = matches!(fetched, Fetched::Whole(head, _) if head.is_success());
        match self.site.movements.end_report(is_received) {
            Report::Received => {}
            Report::Retry(seconds) => {
                self.site.reporting = Reporting::Resting;
                http.set_timer(Duration::from_secs(seconds), Chore::TellSite);
            }
            Report::GivenUp(count) => tracing::warn!(count, "joins and leaves could not be reported to the back end"),
        }
    }

    pub(super) fn site_has_rested(&mut self) {
        self.site.reporting = Reporting::Idle;
    }
}
