//! `as_command_line`: converts settings to command-line arguments, for a command that the user runs in a terminal.

use clap::ValueEnum;

use crate::settings::flags::{DrainCheck, Mode, ProbeMethod, PullPolicy, Settings};

/// Collects options that differ from their default.
#[derive(Default)]
struct ArgList(Vec<String>);

impl ArgList {
    fn option(&mut self, name: &str, value: impl ToString, default: impl ToString) {
        let value = value.to_string();
        if value != default.to_string() {
            self.0.extend([format!("--{name}"), value]);
        }
    }

    fn maybe(&mut self, name: &str, value: Option<impl ToString>) {
        self.all(name, value.as_slice());
    }

    fn all(&mut self, name: &str, values: &[impl ToString]) {
        self.0.extend(values.iter().flat_map(|value| [format!("--{name}"), value.to_string()]));
    }

    fn word(&mut self, name: &str, value: impl ValueEnum, default: impl ValueEnum) {
        let word = |value: &dyn Fn() -> Option<clap::builder::PossibleValue>| {
            value().map(|value| value.get_name().to_owned()).unwrap_or_default()
        };
        self.option(name, word(&|| value.to_possible_value()), word(&|| default.to_possible_value()));
    }

    fn limits(&mut self, [start, call, node]: [u64; 3], concurrency: u16, max_probes: Option<u16>) {
        self.option("start-timeout", start, 30);
        self.option("call-timeout", call, 45);
        self.option("concurrency", concurrency, 8);
        self.maybe("max-probes", max_probes);
        self.option("node-timeout", node, 20);
    }

    fn switch(&mut self, name: &str, on: bool) {
        if on {
            self.0.push(format!("--{name}"));
        }
    }
}

fn path(path: &Option<std::path::PathBuf>) -> Option<String> {
    path.as_ref().map(|path| path.display().to_string())
}

/// Returns the arguments that produce these settings. Defaults are left out.
pub(crate) fn as_command_line(settings: &Settings) -> Vec<String> {
    // The pattern has no `..`, so that the code does not compile until every new setting is handled.
    let Settings {
        #[cfg(feature = "demo")]
        demo,
        #[cfg(feature = "demo")]
        from,
        config,
        kubeconfig,
        context,
        impersonate,
        impersonate_group,
        allow_context,
        allow_nodes,
        via,
        ask_nccl,
        no_ephemeral,
        ephemeral_pod,
        base_image,
        probe_binary,
        runtime_class,
        probe_namespace,
        image,
        image_digest,
        registry_mirror,
        image_pull_policy,
        image_pull_secret,
        label,
        annotation,
        toleration,
        start_timeout,
        call_timeout,
        concurrency,
        max_probes,
        node_timeout,
        mode,
        drain_check,
        token_to_model: _,
        archive: _,
        released_digest: _,
    } = settings;
    let mut args = ArgList::default();
    #[cfg(feature = "demo")]
    {
        args.switch("demo", *demo);
        args.maybe("from", path(from));
    }
    args.maybe("config", path(config));
    args.maybe("kubeconfig", path(kubeconfig));
    args.maybe("context", context.as_ref());
    args.maybe("as", impersonate.as_ref());
    args.all("as-group", impersonate_group);
    args.all("allow-context", allow_context);
    args.maybe("allow-nodes", allow_nodes.as_ref());
    args.word("via", *via, ProbeMethod::Auto);
    args.switch("ask-nccl", *ask_nccl);
    args.switch("no-ephemeral", *no_ephemeral);
    args.maybe("ephemeral-pod", ephemeral_pod.as_ref());
    args.maybe("base-image", base_image.as_ref());
    args.maybe("probe-binary", path(probe_binary));
    args.maybe("runtime-class", runtime_class.as_ref());
    args.option("probe-namespace", probe_namespace, "gpu-syringe");
    args.maybe("image", image.as_ref());
    args.maybe("image-digest", image_digest.as_ref());
    args.maybe("registry-mirror", registry_mirror.as_ref());
    args.word("image-pull-policy", *image_pull_policy, PullPolicy::IfNotPresent);
    args.all("image-pull-secret", image_pull_secret);
    args.all("label", label);
    args.all("annotation", annotation);
    args.all("toleration", toleration);
    args.limits([*start_timeout, *call_timeout, *node_timeout], *concurrency, *max_probes);
    args.word("mode", *mode, Mode::ReadOnly);
    args.word("drain-check", *drain_check, DrainCheck::On);
    args.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_arguments_of_settings_produce_the_same_settings() {
        let given = [
            "--kubeconfig",
            "/home/a b/config",
            "--context",
            "prod",
            "--allow-context",
            "*",
            "--allow-nodes",
            "pool in (a, b)",
            "--via",
            "inject",
            "--ask-nccl",
            "--no-ephemeral",
            "--ephemeral-pod",
            "ml/train",
            "--base-image",
            "debian:13",
            "--probe-binary",
            "/x/node-probe",
            "--runtime-class",
            "nvidia",
            "--probe-namespace",
            "tools",
            "--image",
            "x:1",
            "--registry-mirror",
            "m",
            "--image-pull-policy",
            "never",
            "--image-pull-secret",
            "creds",
            "--label",
            "a=b",
            "--label",
            "c=d",
            "--annotation",
            "e=f=g",
            "--toleration",
            "k=v:NoSchedule",
            "--start-timeout",
            "31",
            "--call-timeout",
            "46",
            "--concurrency",
            "9",
            "--node-timeout",
            "21",
            "--mode",
            "operator",
            "--drain-check",
            "off",
        ];
        let settings = Settings::from_args(given).expect("settings");
        let args = as_command_line(&settings);
        let again = Settings::from_args(args.iter().map(String::as_str)).expect("settings");
        assert_eq!(format!("{again:?}"), format!("{settings:?}"));
        assert_eq!(args.len(), given.len());
        assert_eq!(as_command_line(&Settings::from_args([]).expect("settings")), Vec::<String>::new());
    }
}
