//! Periodic work of a loop: at the end of each tick, once a second, and on timers.

use std::time::Duration;

use sealed::fault;
use sealed_http::Http;

use super::answers::Out;
use super::{Gateway, loop_time, now, unix_time};
use crate::ops::health::{Life, Listener};

/// The interval of the sweeps for old messages and idle channels.
const SWEEP_INTERVAL: Duration = Duration::from_secs(1);

/// The purpose of a timer.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Chore {
    /// Sweeps old messages and idle channels.
    Sweep,
    /// Continues work that the engine could not finish in a tick.
    WakeEngine,
    /// Repeats a report that the back end did not receive.
    TellSite,
    /// Checks for questions to the back end that have waited for too long.
    LookAtQuestions,
}

impl Gateway {
    pub(super) fn do_chore(&mut self, http: &mut Http<'_, Self>, chore: Chore) {
        match chore {
            Chore::Sweep => self.sweep(http),
            // The work continues at the end of this tick.
            Chore::WakeEngine => self.wake = None,
            // The report is sent at the end of this tick.
            Chore::TellSite => self.site_has_rested(),
            Chore::LookAtQuestions => self.look_at_questions(http),
        }
    }

    fn sweep(&mut self, http: &mut Http<'_, Self>) {
        self.hub.sweep(unix_time(http));
        self.client_tracker.sweep(loop_time(http));
        if !fault!("pieces-take-for-ever") {
            self.end_unfinished(http);
        }
        self.engine.sweep(now(http));
        self.site.sweep(loop_time(http));
        self.sweep_readers(http);
        self.look_for_slow_readers(http);
        self.refresh_keys(http);
        self.show_life();
        self.answering.refusals.note_pauses(http.stats().accept_pauses);
        if !fault!("refusals-not-logged") {
            self.answering.refusals.write_due(unix_time(http));
        }
    }

    /// Passes on the results of this tick: from the engine to the hub, and from there to
    /// subscribers.
    pub(super) fn end_tick(&mut self, http: &mut Http<'_, Self>) {
        // A loop without connections may have channels on its shard all the same.
        let is_unvisited = fault!("unvisited-loop-unswept") && http.connections() == 0;
        if !is_unvisited && !std::mem::replace(&mut self.is_sweeping, true) {
            http.set_interval(SWEEP_INTERVAL, Chore::Sweep);
            self.metrics.started.get_or_init(|| unix_time(http));
            self.refresh_keys(http);
        }
        self.engine.end_tick(now(http));
        self.pump(http);
        // This precedes the flush, which removes the messages that the shard has dropped.
        self.feed_readers(http);
        if self.hub.is_dirty() {
            let now = unix_time(http);
            self.hub.flush(now, &mut Out { http, answering: &self.answering });
        }
        self.count_fan_out(http);
        self.pump(http);
        self.count_ended(http);
        let delay = self.engine.post(now(http));
        self.adopt_settings(http);
        let delay = self.post_reload_mail().into_iter().chain(delay).min();
        let delay = if self.hub.has_ready_followers() || self.hub.is_resuming() { Some(Duration::ZERO) } else { delay };
        if let Some(delay) = delay {
            self.wake_engine_in(http, delay);
        }
        self.tell_site(http);
        self.show_counts();
    }

    /// Sets the timer for the engine, unless it expires before.
    fn wake_engine_in(&mut self, http: &mut Http<'_, Self>, delay: Duration) {
        let at = loop_time(http).plus(delay);
        if let Some((earlier, timer)) = self.wake {
            if earlier <= at {
                return;
            }
            http.cancel_timer(timer);
        }
        self.wake = Some((at, http.set_timer(delay, Chore::WakeEngine)));
    }

    /// Shows that this loop is alive; the first loop reports that all of them are.
    fn show_life(&mut self) {
        self.counters[self.index].beat();
        if self.watchdog.check(&self.counters)
            && let Some(Listener(tell)) = &self.life
        {
            tell(Life::Alive);
        }
    }
}
