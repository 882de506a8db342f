//! The type `Worker`: runs steps, with its own home directory, proxy and namespace, and checks the results.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use gpu_syringe::command_line::command_of;
use kube::ResourceExt;
use serde_json::Value;
use tokio::time::sleep;

use super::actions::{self, KILL};
use super::cluster::Site;
use super::containers;
use super::plan::{Event, Step, Way};
use super::properties::{Violation, audit_log, is_named, read_answer, read_command};
use super::proxy::Proxy;
use super::reference::{Reference, arguments};
use super::session::{Reply, Session};
use super::truth::Truth;
use crate::support::launcher::{Launcher, Running};

/// `--call-timeout` of the launchers, in seconds.
pub(crate) const CALL_SECONDS: u64 = 12;
/// `--start-timeout` of the launchers, in seconds.
const START_SECONDS: u64 = 6;
/// Maximum time of a call on a busy machine: its time limit, and the creation and deletion of a pod with all retries.
const ANSWER_TIME: Duration = Duration::from_secs(CALL_SECONDS + 40);
/// Maximum time that a program takes to exit after a second signal.
const END_TIME: Duration = Duration::from_secs(5);
/// Maximum time that a new launcher takes to delete the pods of a launcher that was killed.
const SWEEP_TIME: Duration = Duration::from_secs(20);
/// Maximum time until a request of a killed launcher arrives, and until a pod is seen in the watch.
const ARRIVAL_TIME: Duration = Duration::from_millis(300);

/// A worker of a run.
pub(crate) struct Worker {
    pub(crate) number: usize,
    site: Arc<Site>,
    proxy: Proxy,
    truth: Truth,
    home: tempfile::TempDir,
    session: Option<Session>,
    reference: Arc<Reference>,
    /// All messages of launchers about pods that may be left behind.
    declared: String,
    /// UIDs of pods whose launcher was killed.
    orphans: BTreeSet<String>,
    /// Whether a launcher was killed since the last check of the audit log.
    was_killed: bool,
    /// Ephemeral containers of the reference, which has another audit log.
    foreign: BTreeSet<String>,
    /// Number of actions in the audit log that have no end line because their launcher was killed.
    actions_without_end: isize,
    /// Pods of killed launchers that are not in the audit log yet. A later clean-up writes the lines about these pods.
    owed: BTreeSet<String>,
    pub(crate) violations: Vec<Violation>,
}

impl Worker {
    pub(crate) async fn new(number: usize, site: Arc<Site>, reference: Arc<Reference>) -> Self {
        let proxy = Proxy::start(site.config.clone()).await;
        let home = tempfile::tempdir().expect("a directory");
        std::fs::write(home.path().join("config"), proxy.kubeconfig()).expect("a file");
        let truth = Truth::of(site.pods_api(number)).await;
        let (session, violations) = (None, Vec::new());
        let (declared, orphans, owed) = (String::new(), BTreeSet::new(), BTreeSet::new());
        let (was_killed, actions_without_end) = (false, 0);
        let foreign = containers::of_worker(&site, number).await.into_iter().map(|one| one.name).collect();
        Self {
            number,
            site,
            proxy,
            truth,
            home,
            session,
            reference,
            declared,
            orphans,
            was_killed,
            foreign,
            actions_without_end,
            owed,
            violations,
        }
    }

    fn launcher(&self, via: &str) -> Launcher {
        let launcher = Launcher::alone(self.home.path())
            .env("KUBECONFIG", self.home.path().join("config"))
            .env("GPU_SYRINGE_VIA", via)
            .env("GPU_SYRINGE_EPHEMERAL_POD", "any")
            .env("GPU_SYRINGE_CALL_TIMEOUT", CALL_SECONDS.to_string())
            .env("GPU_SYRINGE_START_TIMEOUT", START_SECONDS.to_string());
        self.site.configure(launcher, self.number)
    }

    /// Starts a session with this probe method.
    pub(crate) async fn session(&mut self, via: &'static str) -> Option<Session> {
        if let Some(session) = self.session.take() {
            if session.via == via {
                return Some(session);
            }
            self.session = Some(session);
            self.end_session(&Step::without_faults(via)).await;
        }
        Session::start(self.launcher(via), via, Duration::from_secs(20)).await
    }

    /// Starts the session of the reference, whose limits do not depend on how busy the machine is.
    pub(crate) async fn reference_session(&self, via: &'static str) -> Option<Session> {
        let launcher = self.launcher(via).env("GPU_SYRINGE_CALL_TIMEOUT", "100").env("GPU_SYRINGE_START_TIMEOUT", "60");
        Session::start(launcher, via, Duration::from_secs(20)).await
    }

    fn violated(&mut self, step: &Step, what: &'static str, detail: impl Into<String>) {
        let faults = self.proxy.take_done();
        let detail = detail.into();
        eprintln!("VIOLATION step {}: {what}: {detail}", step.number);
        self.violations.push(Violation { step: step.clone(), what, detail, faults });
    }

    /// Runs one step, and checks the properties that must be true afterwards.
    pub(crate) async fn run(&mut self, step: &Step) {
        self.sweep(step).await;
        self.proxy.take_done();
        match step.way {
            Way::Mcp => self.run_calls(step).await,
            Way::Command => self.run_command(step).await,
        }
        self.proxy.set(Vec::new());
        for found in self.truth.beyond_deadline() {
            self.violated(step, "deadline", found);
        }
        self.check_actions(step);
        self.check_audit(step).await;
    }

    async fn run_calls(&mut self, step: &Step) {
        let Some(mut session) = self.session(step.via).await else {
            return self.violated(step, "session", "a server did not start");
        };
        self.proxy.set(step.rules.clone());
        let node = self.site.node(self.number, step.healthy);
        let count = if let Event::Together(count) = step.event { count } else { 1 };
        let ids: Vec<_> = (0..count).map(|_| session.call(step.tool, &arguments(step.tool, &node))).collect();
        let end = Instant::now() + ANSWER_TIME;
        let cancelled = matches!(step.event, Event::Cancel(_));
        self.disturb(step, &mut session.running).await;
        if cancelled {
            ids.iter().for_each(|id| session.cancel(*id));
        }
        let (mut ended, mut said) = (false, String::new());
        for id in ids {
            // A cancelled call has no answer, unless the answer came before the cancellation.
            let end = if cancelled { Instant::now() + Duration::from_millis(200) } else { end };
            match session.reply(id, end).await {
                Reply::Result(result) => {
                    let disturbed = matches!(step.event, Event::KubeletStops(_));
                    said.push_str(&result.to_string());
                    let found = read_answer(&result, |answer| self.reference.wrong(step, &node, answer, disturbed));
                    found.into_iter().for_each(|(what, detail)| self.violated(step, what, detail));
                }
                Reply::Error(error) => self.violated(step, "error", format!("a JSON-RPC error: {error}")),
                Reply::Ended => ended = true,
                Reply::Late if cancelled => {}
                Reply::Late => self.violated(step, "hang", format!("no answer within {ANSWER_TIME:?}")),
                Reply::NotProtocol(line) => self.violated(step, "protocol", line),
            }
        }
        self.declared.push_str(&said);
        let ends = matches!(step.event, Event::Signal(..) | Event::CloseStdin(_));
        if ended && !ends {
            self.violated(step, "crash", session.running.said());
        }
        self.session = Some(session);
        if ends || ended {
            self.end_session(step).await;
        }
        self.check_pods(step, cancelled).await;
    }

    async fn run_command(&mut self, step: &Step) {
        let node = self.site.node(self.number, step.healthy);
        let command = command_of(step.tool);
        let mut words = vec!["--output", "json", command];
        if step.tool != "list_gpu_nodes" {
            words.push(&node);
        }
        if step.tool == KILL {
            words.splice(0..0, ["--mode", "operator"]);
            words.extend(actions::words());
        }
        self.proxy.set(step.rules.clone());
        let mut running = self.launcher(step.via).args(words).start();
        running.close_stdin();
        self.disturb(step, &mut running).await;
        let killed = matches!(step.event, Event::Signal("KILL", ..));
        let again = matches!(step.event, Event::Signal(_, _, Some(_)));
        let time = if again || killed { END_TIME } else { ANSWER_TIME };
        let Some(status) = running.exit_by(Instant::now() + time).await else {
            let said = running.said();
            self.violated(step, "hang", format!("the command did not exit within {time:?}; its output: {said}"));
            running.signal("KILL");
            return self.adopt_of_killed().await;
        };
        let mut stdout = String::new();
        while let Some(line) = running.lines.recv().await {
            stdout.push_str(&(line + "\n"));
        }
        let said = running.said();
        self.declared.push_str(&(said.clone() + &stdout));
        let interrupted = matches!(step.event, Event::Signal(..));
        if killed || (interrupted && status.code().is_none() && said.is_empty()) {
            // A signal may arrive before the program has installed its handler.
            return self.adopt_of_killed().await;
        }
        let disturbed = matches!(step.event, Event::KubeletStops(_));
        let compare = |answer: &Value| self.reference.wrong(step, &node, answer, disturbed);
        let found = read_command(status.code(), &stdout, &said, again, compare);
        found.into_iter().for_each(|(what, detail)| self.violated(step, what, detail));
        self.check_pods(step, false).await;
    }

    /// Causes the disturbance of a step.
    async fn disturb(&mut self, step: &Step, running: &mut Running) {
        match step.event {
            Event::Nothing | Event::Together(_) => {}
            Event::Cancel(after) => sleep(after).await,
            Event::Signal(name, after, again) => {
                sleep(after).await;
                running.try_signal(name);
                if let Some(again) = again {
                    sleep(again).await;
                    running.try_signal(name);
                }
            }
            Event::CloseStdin(after) => {
                sleep(after).await;
                running.close_stdin();
            }
            Event::DeletePod(after, now) => {
                sleep(after).await;
                self.site.delete_pods(self.number, now).await;
            }
            Event::KubeletStops(time) => self.site.stop_kubelet(self.number, time).await,
        }
    }

    /// Closes the session. The program must exit in time.
    async fn end_session(&mut self, step: &Step) {
        let Some(mut session) = self.session.take() else { return };
        session.running.close_stdin();
        let (killed, again) = match step.event {
            Event::Signal("KILL", ..) => (true, false),
            Event::Signal(_, _, again) => (false, again.is_some()),
            _ => (false, false),
        };
        let time = if again || killed { END_TIME } else { ANSWER_TIME };
        if session.running.exit_by(Instant::now() + time).await.is_none() {
            self.violated(step, "hang", format!("the server did not exit within {time:?}"));
            session.running.signal("KILL");
            self.adopt_of_killed().await;
        }
        let said = session.running.said();
        if said.contains("panicked") {
            self.violated(step, "crash", said.clone());
        }
        self.declared.push_str(&said);
        if killed {
            self.adopt_of_killed().await;
        }
    }

    /// Waits until the requests of a killed launcher have arrived, then calls `adopt`.
    async fn adopt_of_killed(&mut self) {
        self.was_killed = true;
        sleep(ARRIVAL_TIME).await;
        self.adopt().await;
    }

    /// Records all existing pods as pods of a launcher that has exited.
    async fn adopt(&mut self) {
        for pod in self.site.pods(self.number).await {
            self.truth.note(&pod, false);
        }
        self.orphans.extend(self.open().await.into_iter().map(|(key, _)| key));
    }

    /// Returns the keys and names of the launchers' existing pods and running ephemeral containers.
    async fn open(&self) -> Vec<(String, String)> {
        let pods = self.site.pods(self.number).await;
        let pods = pods.iter().map(|pod| (pod.uid().unwrap_or_default(), pod.name_any()));
        let containers = containers::of_worker(&self.site, self.number).await;
        let running = containers.into_iter().filter(|one| one.is_open && !self.foreign.contains(&one.name));
        pods.chain(running.map(|one| (one.name.clone(), one.name))).collect()
    }

    /// Checks that after an answer every pod is deleted or was reported as possibly left behind.
    async fn check_pods(&mut self, step: &Step, background: bool) {
        let end = Instant::now() + if background { ANSWER_TIME } else { Duration::ZERO };
        loop {
            let log = self.session.as_ref().map(|session| session.running.said()).unwrap_or_default();
            let undeclared: Vec<_> = self
                .open()
                .await
                .into_iter()
                .filter(|(key, _)| !self.orphans.contains(key))
                .map(|(_, name)| name)
                .filter(|name| !is_named(&self.declared, name) && !is_named(&log, name))
                .collect();
            if undeclared.is_empty() {
                return;
            }
            if Instant::now() >= end {
                self.adopt().await;
                return self.violated(step, "left", format!("undeclared: {}", undeclared.join(", ")));
            }
            sleep(Duration::from_millis(50)).await;
        }
    }

    /// Before a step: checks that a new launcher deletes the pods that were left behind.
    async fn sweep(&mut self, step: &Step) {
        self.proxy.set(Vec::new());
        if self.open().await.is_empty() {
            return;
        }
        // A session does not clean up pods that it could not delete itself, so a new session is started.
        self.end_session(&Step::without_faults("pod")).await;
        self.adopt().await;
        self.session = Session::start(self.launcher("pod"), "pod", Duration::from_secs(20)).await;
        let end = Instant::now() + SWEEP_TIME;
        while !self.open().await.is_empty() {
            if Instant::now() >= end {
                let names: Vec<_> = self.open().await.into_iter().map(|(_, name)| name).collect();
                let containers = containers::of_worker(&self.site, self.number).await;
                self.foreign.extend(containers.into_iter().filter(|one| one.is_open).map(|one| one.name));
                self.violated(step, "sweep", format!("not deleted within {SWEEP_TIME:?}: {}", names.join(", ")));
                self.site.delete_pods(self.number, true).await;
                return;
            }
            sleep(Duration::from_millis(50)).await;
        }
    }

    /// Checks that every created pod is in the audit log; pods of killed launchers may be added by a later clean-up.
    async fn check_audit(&mut self, step: &Step) {
        let was_killed = std::mem::take(&mut self.was_killed);
        let end = Instant::now() + if was_killed { ARRIVAL_TIME } else { Duration::from_secs(5) };
        loop {
            let log = self.audit_log();
            let containers = containers::of_worker(&self.site, self.number).await.into_iter().map(|one| one.name);
            let containers = containers.filter(|name| !self.orphans.contains(name) && !self.foreign.contains(name));
            let missing = self.truth.unaudited(&self.orphans).into_iter().chain(containers);
            let missing: Vec<_> = missing.filter(|name| !self.owed.contains(name) && !is_named(&log, name)).collect();
            if missing.is_empty() {
                return;
            }
            if Instant::now() >= end && was_killed {
                return self.owed.extend(missing);
            }
            if Instant::now() >= end {
                self.violated(step, "audit", format!("not in the audit log: {}", missing.join(", ")));
                self.foreign.extend(missing.clone());
                return self.truth.forgive(&missing);
            }
            sleep(Duration::from_millis(50)).await;
        }
    }

    /// Checks that every started action has an end line in the audit log, unless its launcher was killed.
    fn check_actions(&mut self, step: &Step) {
        let open = actions::without_end(&self.audit_log());
        let may_be_cut = self.was_killed || matches!(step.event, Event::Signal(_, _, Some(_)));
        if open != self.actions_without_end && !may_be_cut {
            self.violated(step, "action", format!("{open} actions without an end, not {}", self.actions_without_end));
        }
        self.actions_without_end = open;
    }

    fn audit_log(&self) -> String {
        audit_log(&self.home.path().join("state/gpu-syringe"))
    }

    /// Lets one more launcher clean up. Afterwards, no pod may be left, and the audit log must contain all pods.
    pub(crate) async fn finish(&mut self, last: &Step) {
        self.end_session(&Step::without_faults("pod")).await;
        self.sweep(last).await;
        self.end_session(&Step::without_faults("pod")).await;
        let mut sweep = self.launcher("pod").args(["sweep"]).start();
        sweep.close_stdin();
        let status = sweep.exit_by(Instant::now() + ANSWER_TIME).await;
        if status.and_then(|status| status.code()) != Some(0) {
            let said = sweep.said();
            self.violated(last, "end", format!("the last sweep failed: {said}"));
        }
        let left: Vec<_> = self.open().await.into_iter().map(|(_, name)| name).collect();
        if !left.is_empty() {
            self.violated(last, "end", format!("left on the cluster: {}", left.join(", ")));
        }
        self.orphans.clear();
        self.owed.clear();
        self.was_killed = false;
        self.check_audit(last).await;
    }
}
