//! Tests of the command lines of the shipped program and of the development program.

use std::ffi::OsString;
use std::time::Duration;

use clap::CommandFactory;
use syringe_core::probe_command::{
    ActionCommand, ContainerId, HoldCommand, KillCommand, NodeAction, ProbeCommand, RESET_TIME, ReadCommand,
    ResetCommand, StackContainer,
};
use syringe_core::section_name::SectionName;
use syringe_core::since::Since;

use super::{Development, Invocation, Shipped, UsageError, command, development, shipped};

fn words(line: &str) -> impl Iterator<Item = OsString> {
    line.split_whitespace().map(OsString::from)
}

fn refusal(line: &str) -> String {
    match shipped(words(line)) {
        Err(UsageError::Wrong(why) | UsageError::Text(why)) => why,
        Ok(task) => panic!("{line}: {task:?}"),
    }
}

const UUID: &str = "GPU-aaaaaaaa-0000-4000-8000-000000000001";

/// With any of these options, a user with exec rights in the probe's container could become root on the node, or read
/// the node's files.
#[test]
fn the_shipped_program_has_no_option_that_names_a_library_a_root_a_program_or_a_file() {
    for line in [
        "inventory --nvml-library /dev/stdin",
        "--nvml-library=/dev/stdin inventory",
        "--root /proc/2/root all",
        "all --root=/proc/2/root",
        "--facts /etc/shadow all",
        "xid --kernel-log /proc/1/root/etc/shadow",
        "all --kernel-log -",
        "host-journal /proc/2/root --since 0",
        "--operator driver-tool --driver-root / --program /bin/sh --gpu GPU-1 --job reset",
        "device-access --theirs /etc/passwd --ours /etc/passwd --folder /dev --names null",
        "child",
        "nvml",
    ] {
        assert!(shipped(words(line)).is_err(), "{line}");
    }
}

#[test]
fn the_name_of_a_log_cannot_leave_its_folder() {
    let uid = "0f8a7c2e-11aa-4bbb-8ccc-123456789abc";
    for good in [format!("{uid}/nvidia-driver-ctr"), format!("{}/a", "0f".repeat(16))] {
        assert!(matches!(shipped(words(&format!("all --stack-log {good}"))), Ok(Invocation::Read(_))), "{good}");
    }
    for bad in [
        "",
        "/",
        "a",
        &format!("{uid}/"),
        &format!("{uid}/.."),
        &format!("{uid}/a/b"),
        &format!("../{uid}/a"),
        &format!("{uid}/A"),
        &format!("{uid}/-a"),
        &format!("x{uid}/a"),
        &format!("{}/a", "0f".repeat(19)),
    ] {
        assert!(shipped(words(&format!("all --stack-log={bad}"))).is_err(), "{bad}");
    }
}

/// A new option with free text must be reviewed and added to the list of known options.
#[test]
fn every_option_of_the_shipped_program_has_a_closed_set_of_values() {
    const KNOWN: [&str; 12] = [
        "timeout-ms",
        "since",
        "container",
        "stack-log",
        "nccl-ras",
        "gpu",
        "pid",
        "start-ticks",
        "grace-seconds",
        "reset-seconds",
        "sample-seconds",
        "seconds",
    ];
    const CLOSED: [&str; 2] = ["drain-check", "once"];
    let command = Shipped::command();
    let arguments = command.get_subcommands().chain([&command]).flat_map(clap::Command::get_arguments);
    for argument in arguments.filter(|argument| argument.get_action().takes_values()) {
        let name = argument.get_long().unwrap_or_else(|| argument.get_id().as_str());
        assert!(KNOWN.contains(&name) || CLOSED.contains(&name) || name == "sections", "--{name} is new");
        for path in ["/dev/stdin", "../x", "a/b", "$(x)", "-x"] {
            let given =
                if name == "sections" { format!("read {path}") } else { format!("{} --{name}={path}", with(name)) };
            assert!(shipped(words(&given)).is_err(), "{given}");
        }
    }
}

/// Returns a command that is complete except for this option.
fn with(option: &str) -> String {
    match option {
        "since" => "xid".into(),
        "container" => "host".into(),
        "gpu" => "kill --pid 2 --start-ticks 1".into(),
        "pid" => format!("kill --gpu {UUID} --start-ticks 1"),
        "start-ticks" => format!("kill --gpu {UUID} --pid 2"),
        "grace-seconds" | "once" => format!("kill --gpu {UUID} --pid 2 --start-ticks 1"),
        "reset-seconds" | "drain-check" => format!("reset --gpu {UUID}"),
        "sample-seconds" => "telemetry".into(),
        "seconds" => "hold".into(),
        _ => "all".into(),
    }
}

/// Returns every kind of command that the launcher can send, with and without each option.
fn commands() -> Vec<ProbeCommand> {
    let flags = [false, true];
    let container: ContainerId = "a1".repeat(32).parse().expect("an ID");
    let stack_log = || format!("{}/driver", "0f".repeat(16)).parse::<StackContainer>().ok();
    let since = |text: &str| text.parse::<Since>().ok();
    let mut reads: Vec<ReadCommand> = SectionName::ALL.into_iter().map(ReadCommand::from).collect();
    reads.push(ReadCommand::of([SectionName::Inventory, SectionName::Kubelet, SectionName::Processes]));
    reads.push(ReadCommand::everything());
    for read in reads.clone() {
        reads.push(read.clone().with_container(Some(container.clone())));
        if read.is_of_everything() || read.sections == [SectionName::Host] {
            reads.push(ReadCommand { stack_log: stack_log(), ..read.clone() });
            reads.push(ReadCommand { stack_log: stack_log(), ..read.clone() }.with_container(Some(container.clone())));
        }
        if read.is_of_everything() {
            reads.push(ReadCommand { stack_log: stack_log(), raw_log: true, ..read.clone() });
            let nccl_ras = "0f8a7c2e-11aa-4bbb-8ccc-123456789abc".parse().ok();
            reads.push(ReadCommand { nccl_ras: nccl_ras.clone(), ..read.clone() });
            reads.push(ReadCommand { stack_log: stack_log(), nccl_ras, ..read.clone() });
            reads.push(ReadCommand { deep: true, ..read.clone() });
            reads.push(ReadCommand { stack_log: stack_log(), deep: true, ..read.clone() });
        }
        if read.sections == [SectionName::Telemetry] {
            reads.extend([0, 10].map(|seconds| ReadCommand { sample_seconds: Some(seconds), ..read.clone() }));
        }
        if read.is_of_everything() || read.sections == [SectionName::Xid] {
            reads.push(ReadCommand { since: since("24h"), ..read.clone() });
            reads.push(ReadCommand { since: since("2026-11-20T00:00:00Z"), ..read });
        }
    }
    let mut commands: Vec<ProbeCommand> = reads.into_iter().map(ProbeCommand::from).collect();
    for (plan, flag) in flags.into_iter().flat_map(|plan| flags.map(|flag| (plan, flag))) {
        let once = (!plan).then(|| "abc".to_owned());
        let grace = Duration::from_secs(10);
        let kill = KillCommand { gpu: UUID.into(), pid: 42, start_ticks: 7, grace, plan };
        commands.push(ProbeCommand::Act(ActionCommand { action: NodeAction::Kill(kill), once: once.clone() }));
        for time in [RESET_TIME, Duration::from_secs(60)] {
            let reset = ResetCommand { gpu: UUID.into(), plan, cordoned: flag, drain_check: !flag, time };
            commands.push(ProbeCommand::Act(ActionCommand { action: NodeAction::Reset(reset), once: once.clone() }));
        }
        commands.push(ProbeCommand::Hold(HoldCommand { seconds: 90, releasable: plan, operator: flag }));
    }
    commands.push(ProbeCommand::Release);
    commands
}

#[test]
fn the_arguments_of_every_command_are_parsed_to_the_same_command() {
    for expected in commands() {
        let args = expected.to_args();
        assert_eq!(command(args.iter().map(OsString::from)).as_ref(), Some(&expected), "{args:?}");
    }
}

/// `deploy/admission-policy.yaml` admits these words in this order.
#[test]
fn the_arguments_keep_their_order() {
    let id = "a1".repeat(32);
    let log = format!("{}/driver", "0f".repeat(16));
    let written: Vec<_> = commands().iter().map(|command| command.to_args().join(" ")).collect();
    for line in [
        "all",
        "xid --since 24h",
        "read inventory,kubelet,processes",
        &format!("all --container {id}"),
        &format!("read inventory,kubelet,processes --container {id}"),
        &format!("all --container {id} --stack-log {log}"),
        "hold --seconds 90",
        "hold --seconds 90 --operator",
        "hold --releasable --seconds 90",
        "release",
        &format!("--operator kill --gpu {UUID} --pid 42 --start-ticks 7 --grace-seconds 10 --plan"),
        &format!("--operator kill --gpu {UUID} --pid 42 --start-ticks 7 --grace-seconds 10 --once abc"),
        &format!("--operator reset --gpu {UUID} --plan"),
        &format!("--operator reset --gpu {UUID} --cordoned --drain-check off --once abc"),
    ] {
        assert!(written.iter().any(|written| written == line), "{line}");
    }
}

#[test]
fn other_forms_of_a_command_are_accepted() {
    for line in [
        "xid --since=2026-11-20T00:00:00Z",
        &format!("kill --gpu {UUID} --pid 42 --start-ticks 7"),
        &format!("--operator reset --gpu {UUID} --cordoned --drain-check on --reset-seconds 300 --plan"),
        "--timeout-ms 3000 all",
        "all --timeout-ms 3000",
    ] {
        assert!(shipped(words(line)).is_ok(), "{line}: {}", refusal(line));
    }
    let Ok(Invocation::Read(request)) = shipped(words("read inventory,ecc")) else { panic!("a request") };
    assert_eq!(request.read, ReadCommand::of([SectionName::Inventory, SectionName::Ecc]));
    assert!(!request.development && request.files.root.is_none());
}

#[test]
fn errors_name_the_wrong_argument() {
    for (line, said) in [
        ("", "no command"),
        ("climb", "'climb'"),
        ("dig --width 3", "'dig'"),
        ("ecc --width 3", "'--width'"),
        ("xid --since", "--since"),
        ("xid --since 1h --since 2h", "multiple times"),
        ("ecc deep", "'deep'"),
        ("ecc -x", "'-x'"),
        ("read inventory,nothing", "the names are: inventory"),
        ("all --timeout-ms 1", "100..=60000"),
        ("kill --gpu GPU-1", "--pid"),
        ("host --container ../../etc", "64 hex digits"),
        ("--operator reset --gpu /dev/sda", "has the form GPU-"),
    ] {
        let why = refusal(line);
        assert!(why.contains(said), "{line}: {why}");
    }
}

#[test]
fn the_development_program_has_the_options_that_name_files() {
    let line = "--root /t --nvml-library /l.so xid --kernel-log /log --since 1h";
    let Ok(Invocation::Read(request)) = development(words(line)) else { panic!("a request") };
    assert!(request.development && request.files.kernel_log.is_some() && request.files.nvml_library.is_some());
    Development::command().debug_assert();
    Shipped::command().debug_assert();
}

#[test]
fn help_is_text_and_not_a_document() {
    let Err(UsageError::Text(help)) = shipped(words("--help")) else { panic!("help") };
    assert!(help.contains("inventory") && !help.contains("nvml-library") && !help.contains("--root"), "{help}");
    assert!(
        matches!(shipped(words("--version")), Err(UsageError::Text(text)) if text.contains(crate::document::VERSION))
    );
}
