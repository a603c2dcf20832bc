//! Reloads of the settings.
//!
//! The first loop has the settings read by a worker, one reload at a time, and sends them to all
//! loops. Each loop adopts them at the end of a tick, and confirms it. Then the first loop answers
//! the clients that have asked.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use sealed::{ConnectionId, Listen, Mailbox, PostError, Workers};
use sealed_http::{Http, Problem as Details};
use serde_json::json;

use super::answers::{answering, fields_for, note_refusal, origin_number, origin_of_number};
use super::key_set::KeySetFetches;
use super::setup::{admin_cors, front_cors, http_settings, hub_limits, shard_limits};
use super::{Gateway, SessionState, done};
use crate::access::Authorizer;
use crate::access::token::AdminKeys;
use crate::config::Config;
use crate::config::table::Changes;
#[cfg(feature = "tls")]
use crate::config::tls::TlsConfig;
use crate::config::tls::TlsParts;
use crate::core::problem::Problem;
use crate::handle::{LoopMessage, NewSettings, ReloadAsker, ReloadMail, ReloadOutcome};
use crate::in_force::{InForce, Keys, SharedInForce};
use crate::ops::reload::{Reload, ReloadListener, SettingsSource};
use crate::ops::static_files::StaticFiles;
use crate::protocols::call::Door;
use crate::protocols::format::response::json_response;

/// The time after which mail that found no room is posted again.
const POST_AGAIN: Duration = Duration::from_millis(1);

/// The listeners whose sockets the program has passed to the server: their addresses in the
/// settings are not used.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Taken {
    pub(crate) front: bool,
    pub(crate) admin: bool,
}

/// The TLS of the listeners, whose certificates can be replaced.
#[derive(Debug, Clone, Default)]
pub(crate) struct Acceptors {
    #[cfg(feature = "tls")]
    all: [Option<sealed::tls::Acceptor>; 2],
}

impl Acceptors {
    #[cfg_attr(not(feature = "tls"), allow(unused_variables))]
    pub(crate) fn new(TlsParts { front, admin, .. }: &TlsParts) -> Self {
        #[cfg(feature = "tls")]
        let acceptor = |tls: &Option<TlsConfig>| tls.clone().map(sealed::tls::Acceptor::new);
        Self {
            #[cfg(feature = "tls")]
            all: [acceptor(front), acceptor(admin)],
        }
    }

    /// Returns how the front, or the admin listener, accepts connections.
    #[cfg_attr(not(feature = "tls"), allow(unused_variables, clippy::unused_self))]
    pub(crate) fn listen(&self, door: Door, listen: Listen) -> Listen {
        #[cfg(feature = "tls")]
        if let Some(acceptor) = &self.all[usize::from(door == Door::Admin)] {
            return listen.tls(acceptor.clone());
        }
        listen
    }

    /// Replaces the certificates, for connections that are accepted from now on.
    #[cfg_attr(not(feature = "tls"), allow(unused_variables, clippy::unused_self))]
    fn set(&self, TlsParts { front, admin, .. }: &TlsParts) {
        #[cfg(feature = "tls")]
        for (acceptor, tls) in self.all.iter().zip([front, admin]) {
            if let (Some(acceptor), Some(tls)) = (acceptor, tls) {
                acceptor.replace(tls.clone());
            }
        }
    }
}

/// What reloads need, for all loops.
#[derive(Debug, Clone)]
pub(crate) struct ReloadParts {
    pub(crate) source: Option<SettingsSource>,
    pub(crate) listener: Option<ReloadListener>,
    workers: Workers,
    taken: Taken,
    acceptors: Acceptors,
    /// The settings in force, for handles.
    shared: Arc<SharedInForce>,
}

impl ReloadParts {
    pub(crate) fn new(workers: Workers, taken: Taken, acceptors: Acceptors, shared: Arc<SharedInForce>) -> Self {
        Self { source: None, listener: None, workers, taken, acceptors, shared }
    }
}

/// The reloads of a loop.
#[derive(Debug)]
pub(super) struct Reloads {
    parts: ReloadParts,
    mailboxes: Vec<Mailbox<LoopMessage>>,
    /// The settings to adopt at the end of this tick.
    next: Option<InForce>,
    /// Mail to other loops that is not posted yet.
    unposted: VecDeque<(usize, ReloadMail)>,
    /// The reload in progress; on the first loop only.
    current: Option<Current>,
    /// The clients for which another reload follows the one in progress, and whether one does.
    waiting: Vec<ReloadAsker>,
    is_wanted: bool,
}

/// A reload in progress.
#[derive(Debug)]
struct Current {
    askers: Vec<ReloadAsker>,
    /// The settings, when they have been read.
    settings: Option<NewSettings>,
    /// The number of loops that have not adopted the settings.
    missing: usize,
}

impl Reloads {
    pub(super) fn new(parts: ReloadParts, mailboxes: Vec<Mailbox<LoopMessage>>) -> Self {
        Self {
            parts,
            mailboxes,
            next: None,
            unposted: VecDeque::new(),
            current: None,
            waiting: Vec::new(),
            is_wanted: false,
        }
    }

    fn tell(&self, step: Reload<'_>) {
        if let Some(ReloadListener(tell)) = &self.parts.listener {
            tell(step);
        }
    }
}

impl Gateway {
    /// Reloads the settings for a client of the admin listener.
    pub(super) fn reload_for(&mut self, http: &mut Http<'_, Self>, id: ConnectionId) {
        if let Some(client) = http.state_mut(id) {
            client.session = SessionState::Asking;
        }
        let asker = ReloadAsker { loop_index: self.index, client: id };
        if self.index == 0 {
            return self.reload(http, Some(asker));
        }
        self.reloads.unposted.push_back((0, ReloadMail::Asked(asker)));
    }

    /// Reloads the settings, and answers a client that asks for it. Runs on the first loop.
    pub(super) fn reload(&mut self, http: &mut Http<'_, Self>, asker: Option<ReloadAsker>) {
        let reloads = &mut self.reloads;
        if reloads.current.is_some() {
            // What is being read may not have the latest change.
            reloads.waiting.extend(asker);
            reloads.is_wanted = true;
            return;
        }
        self.begin_reload(http, asker.into_iter().collect());
    }

    fn begin_reload(&mut self, http: &mut Http<'_, Self>, askers: Vec<ReloadAsker>) {
        let reloads = &mut self.reloads;
        reloads.current = Some(Current { askers, settings: None, missing: 0 });
        let Some(source) = reloads.parts.source.clone() else {
            tracing::warn!("nothing is reloaded: the program around this server has no settings to read again");
            return self.end_reload(http, ReloadOutcome::NoSource);
        };
        reloads.tell(Reload::Begun);
        let (running, taken, workers) = (self.config.clone(), reloads.parts.taken, reloads.parts.workers.clone());
        let read = move || LoopMessage::from(ReloadMail::Read(read_settings(&source, &running, taken)));
        if let Err(error) = http.offload(&workers, move |_| read()) {
            self.refuse_settings(http, format!("the settings cannot be read: {error}"));
        }
    }

    pub(super) fn take_reload_mail(&mut self, http: &mut Http<'_, Self>, mail: ReloadMail) {
        match mail {
            ReloadMail::Asked(asker) => self.reload(http, Some(asker)),
            ReloadMail::Read(Err(error)) => self.refuse_settings(http, error),
            ReloadMail::Read(Ok(settings)) => self.spread_settings(settings),
            ReloadMail::Adopt(in_force) => self.reloads.next = Some(in_force),
            ReloadMail::Adopted => self.note_adopted(http),
            ReloadMail::Keys(Keys(verifier)) => self.authorizer.set_verifier(verifier),
            ReloadMail::Answer(client, outcome) => self.answer_reload(http, client, &outcome),
        }
    }

    /// Sends settings to all loops.
    fn spread_settings(&mut self, mut settings: NewSettings) {
        self.add_fetched_keys(&mut settings.in_force);
        self.mail_to_all(|| ReloadMail::Adopt(settings.in_force.clone()));
        let Reloads { current: Some(current), mailboxes, .. } = &mut self.reloads else { return };
        (current.missing, current.settings) = (mailboxes.len(), Some(settings));
    }

    /// Returns whether loops are adopting new settings.
    pub(super) fn is_adopting(&self) -> bool {
        self.reloads.current.as_ref().is_some_and(|current| current.missing > 0)
    }

    /// Sends mail to all loops.
    pub(super) fn mail_to_all(&mut self, mail: impl Fn() -> ReloadMail) {
        let Reloads { unposted, mailboxes, .. } = &mut self.reloads;
        unposted.extend((0..mailboxes.len()).map(|to| (to, mail())));
    }

    /// Ends a reload whose settings have an error.
    fn refuse_settings(&mut self, http: &mut Http<'_, Self>, error: String) {
        tracing::error!("the settings were not reloaded, and nothing has changed: {error}");
        self.answering.meter.reloads[0].add(1);
        self.reloads.tell(Reload::Refused);
        self.end_reload(http, ReloadOutcome::Refused(error));
    }

    /// Notes that a loop uses the new settings.
    fn note_adopted(&mut self, http: &mut Http<'_, Self>) {
        let reloads = &mut self.reloads;
        let Some(current) = &mut reloads.current else { return };
        current.missing = current.missing.saturating_sub(1);
        if current.missing > 0 {
            return;
        }
        let Some(NewSettings { in_force, changes }) = current.settings.take() else { return };
        log_changes(&changes);
        warn_of_access(&reloads.parts.shared.get().config, &in_force.config);
        self.answering.meter.reloads[1].add(1);
        reloads.parts.shared.set(in_force.clone());
        reloads.tell(Reload::Applied(&in_force.config));
        self.end_reload(http, ReloadOutcome::Applied(changes));
    }

    /// Answers the clients that have asked for a reload, and starts the next one if it is wanted.
    fn end_reload(&mut self, http: &mut Http<'_, Self>, outcome: ReloadOutcome) {
        let reloads = &mut self.reloads;
        let Some(Current { askers, .. }) = reloads.current.take() else { return };
        let outcome = Arc::new(outcome);
        let answer = |asker: ReloadAsker| (asker.loop_index, ReloadMail::Answer(asker.client, outcome.clone()));
        reloads.unposted.extend(askers.into_iter().map(answer));
        if std::mem::take(&mut reloads.is_wanted) {
            let waiting = std::mem::take(&mut reloads.waiting);
            self.begin_reload(http, waiting);
        }
    }

    fn answer_reload(&mut self, http: &mut Http<'_, Self>, id: ConnectionId, outcome: &ReloadOutcome) {
        // The client may have left.
        if http.state(id).is_none_or(|client| client.session != SessionState::Asking) {
            return;
        }
        done(http, id, &self.answering.meter);
        let refusal = |details: Details, problem| {
            note_refusal(http, id, problem, &self.answering);
            details.into()
        };
        let response = match outcome {
            ReloadOutcome::Applied(Changes { applied, needing_restart }) => json_response(
                json!({ "type": "reload", "applied": applied, "needs_restart": needing_restart }).to_string(),
            ),
            ReloadOutcome::Refused(error) => {
                let problem = Problem::BadSettings;
                refusal(problem.details().detail(format!("Nothing was changed: {error}")), problem)
            }
            ReloadOutcome::NoSource => refusal(Problem::NoSettings.details(), Problem::NoSettings),
        };
        let response = response.with(fields_for(&self.answering, http.state(id)));
        http.respond(id, &response);
    }

    /// Posts the mail of reloads. Returns when to post what found no room.
    pub(super) fn post_reload_mail(&mut self) -> Option<Duration> {
        let Reloads { unposted, mailboxes, .. } = &mut self.reloads;
        while let Some((to, mail)) = unposted.pop_front() {
            let Some(mailbox) = mailboxes.get(to) else { continue };
            // A loop that is gone needs no settings.
            if let Err(PostError::Full(LoopMessage::Reload(mail))) = mailbox.post(mail.into()) {
                unposted.push_front((to, *mail));
                return Some(POST_AGAIN);
            }
        }
        None
    }

    /// Adopts new settings, if there are any. What exists stays.
    pub(super) fn adopt_settings(&mut self, http: &mut Http<'_, Self>) {
        let Some(in_force) = self.reloads.next.take() else { return };
        let loops = self.reloads.mailboxes.len();
        let (config, earlier) = (in_force.config.clone(), std::mem::replace(&mut self.config, in_force.config.clone()));
        self.rules = in_force.rules.clone();
        self.hub.set_limits(hub_limits(&in_force, loops));
        self.engine.set_limits(shard_limits(&in_force, loops), Duration::from_secs(config.times.reply_s));
        self.authorizer = Authorizer::new(in_force.verifier.clone(), &config, in_force.rules.clone());
        self.admin_keys = AdminKeys::new(&config.admin.keys);
        self.token_expirations.set_warning(Duration::from_secs(config.auth.warning_s));
        self.client_tracker.set_config(&config, loops);
        if config.hooks != earlier.hooks {
            self.site.set_hooks(&config.hooks, &self.resolver);
        }
        if config.front.demo != earlier.front.demo {
            self.files = StaticFiles::new(config.front.demo);
        }
        self.set_origins(http, &config);
        if self.index == 0 {
            self.reloads.parts.acceptors.set(&in_force.tls);
            self.key_set_tls = in_force.tls.key_set;
            if config.auth.jwks_url != earlier.auth.jwks_url {
                self.key_set = KeySetFetches::default();
            }
        }
        http.set_settings(http_settings(&config));
        #[cfg(feature = "disk")]
        if let Some(store) = self.disk_store.as_ref().filter(|_| self.index == 0) {
            store.set_times(super::store_times(&config));
        }
        self.reloads.unposted.push_back((0, ReloadMail::Adopted));
    }

    /// Changes the header fields for pages of other origins. Connections that wait for an answer
    /// keep their origins, under new numbers.
    fn set_origins(&mut self, http: &mut Http<'_, Self>, config: &Config) {
        let (front, admin) = (front_cors(config), admin_cors(config));
        let is_same = front.origins == self.preflight.origins && admin.origins == self.admin_preflight.origins;
        for id in if is_same { Vec::new() } else { http.connection_ids() } {
            if let Some(client) = http.state_mut(id).filter(|client| client.origin > 0) {
                let origin = origin_of_number(&self.preflight, &self.admin_preflight, client.origin);
                client.origin = origin.map_or(0, |origin| origin_number(&front, &admin, client.door, origin));
            }
        }
        self.answering.fields = answering(&front, &admin);
        (self.preflight, self.admin_preflight) = (front, admin);
    }
}

/// Reads and checks the settings for a server that runs with `running`. Blocks. The error has its
/// causes.
fn read_settings(source: &SettingsSource, running: &Config, taken: Taken) -> Result<NewSettings, String> {
    let mut read = (source.0)().map_err(|error| with_causes(&error))?;
    if taken.front {
        read.front.listen.clone_from(&running.front.listen);
    }
    if taken.admin {
        read.admin.listen.clone_from(&running.admin.listen);
    }
    // First the settings as a restart would use them, then those that are going to be in force.
    read.check().map_err(|error| with_causes(&error))?;
    let (config, changes) = read.succeed(running);
    let mixed = |error: &dyn std::error::Error| {
        let kept = changes.needing_restart.join(", ");
        format!("with the values of the running server for what needs a restart ({kept}): {}", with_causes(error))
    };
    config.check().map_err(|error| mixed(&error))?;
    let in_force = InForce::new(config).map_err(|error| mixed(&error))?;
    Ok(NewSettings { in_force, changes })
}

fn with_causes(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |cause| cause.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}

/// Logs warnings about access that only the new settings grant.
fn warn_of_access(earlier: &Config, config: &Config) {
    if earlier.auth.has_keys() && !config.auth.has_keys() {
        tracing::warn!("auth has no keys any more: tokens are ignored from now on, and clients need none");
    }
    if config.admin != earlier.admin {
        config.admin.warn();
    }
}

fn log_changes(Changes { applied, needing_restart }: &Changes) {
    if applied.is_empty() {
        tracing::info!(
            "the settings were reloaded, with the files that they name: no setting has changed that a reload applies"
        );
    } else {
        tracing::info!("the settings were reloaded, and applied: {}", applied.join(", "));
    }
    if !needing_restart.is_empty() {
        tracing::warn!("the changes of these settings need a restart: {}", needing_restart.join(", "));
    }
}
