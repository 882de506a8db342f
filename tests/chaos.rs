//! Tests of the launcher under random faults: faulty proxy, signals, cancelled calls, deleted pods, stopped kubelet.
//!
//! After each call, the launcher must have reported everything that it left behind, and must have returned a correct answer
//! or an error with the reason.
//!
//! `CHAOS_SEED=7 CHAOS_CALLS=2000 cargo test -p gpu-syringe --test chaos -- --ignored --nocapture embedded` repeats a run.
//! `CHAOS_STEP=41` repeats only this step. `CHAOS_KUBECONFIG` and `CHAOS_IMAGE` select a real cluster for the test `real`.
#![cfg(unix)]
#![allow(clippy::unwrap_used, clippy::print_stdout)]

#[path = "chaos/actions.rs"]
mod actions;
#[path = "support/bed.rs"]
mod bed;
#[path = "chaos/cluster.rs"]
mod cluster;
#[path = "chaos/containers.rs"]
mod containers;
#[path = "chaos/fault.rs"]
mod fault;
#[path = "chaos/plan.rs"]
mod plan;
#[path = "chaos/properties.rs"]
mod properties;
#[path = "chaos/proxy.rs"]
mod proxy;
#[path = "chaos/random.rs"]
mod random;
#[path = "chaos/reference.rs"]
mod reference;
#[path = "chaos/session.rs"]
mod session;
#[path = "support/mod.rs"]
mod support;
#[path = "chaos/truth.rs"]
mod truth;
#[path = "chaos/worker.rs"]
mod worker;

use std::sync::Arc;
use std::time::Instant;

use self::cluster::Site;
use self::plan::{Options, Step};
use self::properties::Violation;
use self::reference::Reference;
use self::worker::Worker;

/// Number of workers in a run on the embedded cluster.
const WORKERS: usize = 4;

fn number(variable: &str, default: u64) -> u64 {
    std::env::var(variable).ok().and_then(|value| value.parse().ok()).unwrap_or(default)
}

/// Returns a seed that is different in each run.
fn fresh_seed() -> u64 {
    jiff::Timestamp::now().as_microsecond() as u64 % 1_000_000_000
}

/// Runs all steps. Panics if the workers found violations.
async fn run(site: Site, workers: usize, options: Options) {
    let began = Instant::now();
    println!("CHAOS_SEED={} CHAOS_CALLS={}", options.seed, options.calls);
    let site = Arc::new(site);
    let reference = {
        let worker = Worker::new(0, site.clone(), Arc::default()).await;
        let mut reference = Reference::new(site.is_embedded());
        let ways: &[&str] = if options.whole { &["pod", "ephemeral"] } else { &["pod"] };
        for way in ways {
            let mut session = worker.reference_session(way).await.expect("a server");
            reference.ask(&mut session, |healthy| site.node(0, healthy)).await;
        }
        Arc::new(reference)
    };
    let only: Option<usize> = std::env::var("CHAOS_STEP").ok().and_then(|step| step.parse().ok());
    let mut tasks = Vec::new();
    for number in 0..workers {
        let mut worker = Worker::new(number, site.clone(), reference.clone()).await;
        tasks.push(tokio::spawn(async move {
            let steps = (0..options.calls).filter(|step| step % workers == number);
            let mut done = 0;
            for step in steps.filter(|step| only.is_none_or(|only| only == *step)) {
                let step = Step::of(&options, step);
                if only.is_some() {
                    println!("{step:#?}");
                }
                worker.run(&step).await;
                done += 1;
            }
            worker.finish(&Step::without_faults("pod")).await;
            (done, worker.violations)
        }));
    }
    let (mut done, mut violations) = (0, Vec::new());
    for task in tasks {
        let (count, found) = task.await.expect("a worker ends");
        done += count;
        violations.extend(found);
    }
    site.remove(workers).await;
    println!("{done} steps in {:.0} s, {} violations", began.elapsed().as_secs_f64(), violations.len());
    report(options, &violations);
}

fn report(options: Options, violations: &[Violation]) {
    for Violation { step, what, detail, faults } in violations {
        println!("\n{what}: {detail}");
        println!(
            "  {:?} {} --via {} on the {} node, {:?}",
            step.way,
            step.tool,
            step.via,
            kind(step.healthy),
            step.event
        );
        println!("  the proxy: {}", if faults.is_empty() { "nothing".to_owned() } else { faults.join("; ") });
        let Options { seed, calls, .. } = options;
        match step.number {
            usize::MAX => println!("  at the end of CHAOS_SEED={seed} CHAOS_CALLS={calls}"),
            number => println!("  CHAOS_SEED={seed} CHAOS_CALLS={calls} CHAOS_STEP={number}"),
        }
    }
    assert!(violations.is_empty(), "{} violations with CHAOS_SEED={}", violations.len(), options.seed);
}

fn kind(healthy: bool) -> &'static str {
    if healthy { "healthy" } else { "faulty" }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_short_run_on_the_embedded_cluster() {
    let (seed, calls) = (number("CHAOS_SEED", 16), number("CHAOS_CALLS", 60) as usize);
    let options = Options { seed, calls, patient: false, whole: true };
    run(Site::embedded(WORKERS).await, WORKERS, options).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
#[ignore = "takes half an hour"]
async fn a_long_run_on_the_embedded_cluster() {
    let (seed, calls) = (number("CHAOS_SEED", fresh_seed()), number("CHAOS_CALLS", 2_000) as usize);
    let workers = number("CHAOS_WORKERS", WORKERS as u64) as usize;
    run(Site::embedded(workers).await, workers, Options { seed, calls, patient: true, whole: true }).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
#[ignore = "needs a cluster: CHAOS_KUBECONFIG and CHAOS_IMAGE"]
async fn a_long_run_on_a_real_cluster() {
    let (seed, calls) = (number("CHAOS_SEED", fresh_seed()), number("CHAOS_CALLS", 2_000) as usize);
    let workers = number("CHAOS_WORKERS", 2) as usize;
    let named = |name: &str| std::env::var(name).unwrap_or_else(|_| panic!("{name} must be set for this test"));
    let site = Site::real(&named("CHAOS_KUBECONFIG"), named("CHAOS_IMAGE"), workers).await;
    run(site, workers, Options { seed, calls, patient: true, whole: false }).await;
}
