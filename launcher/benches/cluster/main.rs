//! Measures gpu-syringe against a cluster, and prints the table of `docs/performance.md`: tool calls, lists, surveys of
//! many nodes.
//!
//! ```text
//! cargo bench -p gpu-syringe --bench cluster                                  the embedded cluster
//! cargo bench -p gpu-syringe --bench cluster -- --kubeconfig FILE --image IMAGE --namespace NAMESPACE
//! ```
//!
//! Each round measures gpu-syringe and then the reference. The ratio is the ratio of the shortest times, because other
//! load on the machine can only make a measurement longer. gpu-syringe runs as a separate process.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

mod calls;
mod delay_proxy;
mod embedded;
mod lists;
mod options;
mod program;
mod raw;
mod survey;
mod table;

use options::{Options, Part};
use program::Program;
use table::Table;

fn main() {
    let options = Options::parse_args();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    if let Some(steps) = &options.read {
        let kubeconfig = options.kubeconfig.clone().unwrap();
        let steps: Vec<Vec<String>> = serde_json::from_str(steps).unwrap();
        println!("{}", runtime.block_on(raw::read(&kubeconfig, &steps)));
        return;
    }
    let table = runtime.block_on(measure(&options));
    println!("{table}");
    assert!(!table.has_missed_target(), "a target was missed");
}

async fn measure(options: &Options) -> Table {
    let mut table = Table::default();
    if options.kubeconfig.is_some() {
        let program = Program::new(options, options.kubeconfig.clone().unwrap());
        measure_parts(options, &program, &mut table).await;
        return table;
    }
    if options.measures(Part::Lists) || options.measures(Part::Calls) {
        let cluster = embedded::large(options).await;
        let program = Program::new(options, cluster.kubeconfig());
        measure_parts(options, &program, &mut table).await;
    }
    if options.measures(Part::Survey) {
        survey::measure(options, &mut table).await;
    }
    table
}

async fn measure_parts(options: &Options, program: &Program, table: &mut Table) {
    if options.measures(Part::Lists) {
        lists::measure(options, program, table).await;
    }
    if options.measures(Part::Calls) {
        calls::measure(options, program, table).await;
    }
}
