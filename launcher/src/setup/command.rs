//! `SetupArgs`, `run`: the command `gpu-syringe setup`: prints the manifests, applies them, or removes their objects.
//! `program`: the program with the settings that select the cluster, for other commands.

use clap::Args;
use serde_json::{Value, json};
use syringe_core::text::clean_keeping_lines;

use super::apply::{self, Applied, policy_objects};
use super::installed::{Installed, check_name};
use super::manifests::{LABEL, Parameters, Profile, Subject};
use super::objects::ObjectRef;
use super::plan::{self, Change, Planned};
use super::uninstall::{self, Removal};
use crate::consent::{ConsentAnswer, Prompt, shell_quoted};
use crate::policy::values::Values;
use crate::settings::{Settings, image_reference};
use kube_read::Failure;
use kube_read::failure::Cause;
use kube_read::{Connection, Contexts};

/// The risk of the trial profile, which is shown to the user before the profile is applied.
const TRIAL_RISK: &str = "Without the policy, whoever may create pods in this namespace has root on every node of the cluster: \
     nothing limits what a privileged pod runs. This includes the nodes of the control plane. If you apply the hardened profile later, \
     it does not undo what such a pod has done. Use the trial profile on test clusters, or if all users are administrators \
     anyway. The recommended profile is --profile hardened --image REGISTRY/PATH@sha256:DIGEST.";

/// Users and groups that include every user or every component of the cluster.
const ANYBODY: [&str; 5] =
    ["system:authenticated", "system:unauthenticated", "system:anonymous", "system:serviceaccounts", "system:nodes"];

#[derive(Args, Clone, Debug)]
pub(crate) struct SetupArgs {
    /// Scope of the set-up (default: hardened with an --image pinned by digest, otherwise trial)
    #[arg(long, value_name = "PROFILE")]
    profile: Option<Profile>,
    /// User who may use gpu-syringe (repeatable); without a user or group, no binding is created
    #[arg(long, value_name = "NAME")]
    user: Vec<String>,
    /// Group whose users may use gpu-syringe (repeatable)
    #[arg(long, value_name = "NAME")]
    group: Vec<String>,
    /// These users and groups may also kill a process and reset a GPU
    #[arg(long)]
    operator: bool,
    /// Apply the manifests instead of printing them
    #[arg(long, conflicts_with = "uninstall")]
    apply: bool,
    /// Remove everything that setup created, including the namespace
    #[arg(long, conflicts_with_all = ["profile", "user", "group", "operator"])]
    uninstall: bool,
    /// Skip the confirmation prompt
    #[arg(long)]
    pub(crate) yes: bool,
    /// Take over fields that somebody else set to other values
    #[arg(long, requires = "apply")]
    force_conflicts: bool,
    /// Confirm that --profile trial removes an installed policy
    #[arg(long, requires = "apply")]
    remove_policy: bool,
}

pub(crate) struct SetupOutput {
    /// Text for standard output.
    pub(crate) text: String,
    /// The result as JSON.
    pub(crate) json: Value,
    pub(crate) names: Vec<String>,
    /// Whether the text is a manifest.
    pub(crate) is_manifest: bool,
    /// Notes for standard error.
    pub(crate) notes: Vec<String>,
    /// Whether all changes were made.
    pub(crate) is_done: bool,
}

impl SetupArgs {
    fn subjects(&self) -> Vec<Subject> {
        let users = self.user.iter().map(|name| Subject { kind: "User", name: name.clone() });
        users.chain(self.group.iter().map(|name| Subject { kind: "Group", name: name.clone() })).collect()
    }

    fn parameters(&self, settings: &Settings) -> Parameters {
        let (readers, operators) =
            if self.operator { (Vec::new(), self.subjects()) } else { (self.subjects(), Vec::new()) };
        Parameters::new(settings, readers, operators)
    }

    /// Rejects a blank name, which can result from an empty shell variable, and users and groups of [`ANYBODY`].
    fn check_subjects(&self) -> Result<(), Failure> {
        for (option, names) in [("--user", &self.user), ("--group", &self.group)] {
            if names.iter().any(|name| name.trim().is_empty()) {
                return Err(Failure::usage(
                    "Binding the permissions",
                    format!("the name after {option} is blank"),
                    format!("Specify the user or the group, or leave out {option}."),
                ));
            }
        }
        match self.user.iter().chain(&self.group).find(|name| ANYBODY.contains(&name.as_str())) {
            None => Ok(()),
            Some(name) => Err(Failure::usage(
                "Binding the permissions",
                format!("{name} includes too many users, and all of them would have root on the nodes"),
                "Specify the users or the group of the people who operate GPU nodes.",
            )),
        }
    }

    /// Rejects an image that the policy cannot admit, which would silently select the trial profile.
    fn check_pinned(&self, settings: &Settings) -> Result<(), Failure> {
        if !settings.names_image() || self.profile == Some(Profile::Trial) {
            return Ok(());
        }
        let image = settings.probe_image();
        let Some(why) = image_reference::refusal(&image) else { return Ok(()) };
        Err(Failure::usage(
            "Setting up the hardened profile",
            format!("the policy cannot admit the image {image}: {why}"),
            "Specify the image by registry and digest (--image REGISTRY/PATH@sha256:DIGEST; localhost/PATH@… for an \
                image that was loaded into the nodes), or use --profile trial.",
        ))
    }

    /// Returns a note if no bindings are created.
    fn binding_note(&self) -> Option<String> {
        let none = self.user.is_empty() && self.group.is_empty();
        none.then(|| {
            "No user or group is specified, so no binding is created: add --user NAME or --group NAME.".to_owned()
        })
    }
}

pub(crate) async fn run(
    args: &SetupArgs,
    settings: &Settings,
    contexts: &Contexts,
    prompt: &dyn Prompt,
) -> Result<SetupOutput, Failure> {
    check_name(&settings.probe_namespace)?;
    args.check_subjects()?;
    if args.uninstall {
        let removed = remove(settings, &contexts.connect(None).await?, prompt).await;
        return removed.map_err(|failure| match failure.cause {
            Cause::Refused => Failure { next_step: by_administrator(settings), ..failure },
            _ => failure,
        });
    }
    if args.apply {
        return apply(args, settings, &contexts.connect(None).await?, prompt).await;
    }
    args.check_pinned(settings)?;
    print(args, settings)
}

fn print(args: &SetupArgs, settings: &Settings) -> Result<SetupOutput, Failure> {
    let parameters = args.parameters(settings);
    let has_image = !parameters.policy.image().is_empty();
    let profile = args.profile.unwrap_or(if has_image { Profile::Hardened } else { Profile::Trial });
    let items = parameters.objects(profile)?;
    let mut notes =
        vec![format!("Profile {}; nothing was changed. To apply the manifests, add --apply.", profile.as_str())];
    match profile {
        Profile::Trial => notes.push(TRIAL_RISK.to_owned()),
        Profile::Hardened if !has_image => notes.push(
            "The policy admits no probe until its variable image is set: add --image REGISTRY/PATH@sha256:DIGEST."
                .to_owned(),
        ),
        Profile::Hardened => {}
    }
    notes.extend(args.binding_note());
    let text = parameters.yaml(profile).trim_end().to_owned();
    let json = json!({"apiVersion": "v1", "kind": "List", "items": items});
    Ok(SetupOutput { text, json, names: Vec::new(), is_manifest: true, notes, is_done: true })
}

/// The planned changes.
struct Intent {
    profile: Profile,
    planned: Vec<Planned>,
    /// The objects of an installed policy that are removed, if the profile has no policy.
    removal: Removal,
}

impl Intent {
    fn is_empty(&self) -> bool {
        self.removal.ours.is_empty() && self.planned.iter().all(|one| one.change == Change::Unchanged)
    }

    fn text(&self, connection: &Connection, namespace: &str) -> String {
        let mut text = format!("{}\nProfile {}, namespace {namespace}:\n", place(connection), self.profile.as_str());
        for Planned { reference, change, manifest } in self.planned.iter().filter(|one| one.change != Change::Unchanged)
        {
            text.push_str(&format!("  {:<7} {reference}{}\n", change.verb(), what_it_grants(manifest)));
        }
        for (object, _) in &self.removal.ours {
            text.push_str(&format!("  {:<7} {object}\n", Change::Deleted.verb()));
        }
        if self.profile == Profile::Trial {
            text.push_str(TRIAL_RISK);
        }
        text.trim_end().to_owned()
    }
}

/// Returns the subjects of a binding, or the image that the policy admits.
fn what_it_grants(manifest: &Value) -> String {
    let subjects = manifest["subjects"].as_array().into_iter().flatten();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let names: Vec<_> = subjects.map(|one| format!("{} {}", text(&one["kind"]), text(&one["name"]))).collect();
    let values = Values::of_policy(&manifest["spec"]);
    match values.image() {
        "" if names.is_empty() => String::new(),
        "" => format!(" for {}", names.join(", ")),
        image => format!(" (image {image})"),
    }
}

fn place(connection: &Connection) -> String {
    format!("Context {} ({})", connection.context, connection.server)
}

async fn apply(
    args: &SetupArgs,
    settings: &Settings,
    connection: &Connection,
    prompt: &dyn Prompt,
) -> Result<SetupOutput, Failure> {
    let namespace = &settings.probe_namespace;
    args.check_pinned(settings)?;
    let installed = Installed::read(connection, namespace).await?;
    installed.check_namespace(namespace)?;
    let mut parameters = args.parameters(settings);
    let profile = args.profile.unwrap_or_else(|| installed.profile(&parameters));
    installed.keep(&mut parameters);
    check_image(profile, &parameters)?;
    let weakens = installed.has_policy && profile == Profile::Trial;
    if weakens && args.yes && !args.remove_policy {
        return Err(Failure::usage(
            format!("Setting up namespace {namespace} without its policy"),
            format!("the hardened profile is installed, and the trial profile would remove its policy. {TRIAL_RISK}"),
            "To remove the policy without a prompt, add --remove-policy to --yes.",
        ));
    }
    let planned = plan::plan(connection, parameters.objects(profile)?, args.force_conflicts).await?;
    let removal =
        if weakens { uninstall::select(connection, policy_objects(namespace)).await? } else { Removal::default() };
    let intent = Intent { profile, planned, removal };
    if !intent.is_empty() {
        if weakens && !args.remove_policy {
            let question = format!(
                "Namespace {namespace} is set up as hardened. Profile trial removes the policy that limits its pods to the probe.\n\
                 {TRIAL_RISK}"
            );
            if let Some(declined) = ask(prompt, &question).await {
                return Ok(declined);
            }
        }
        if let Some(declined) = ask(prompt, &intent.text(connection, namespace)).await {
            return Ok(declined);
        }
    }
    let mut applied = apply::apply(connection, &intent.planned, namespace, args.force_conflicts).await?;
    applied.extend(uninstall::remove(connection, &intent.removal.ours).await?);
    let mut notes = Vec::new();
    if profile == Profile::Hardened && !installed.has_policy {
        notes.extend(uninstall::note_of_older_pods(connection, namespace).await);
    }
    if profile == Profile::Trial {
        notes.push(TRIAL_RISK.to_owned());
    }
    notes.extend(args.binding_note());
    Ok(report(&applied, Some(profile), connection, settings, notes))
}

/// Fails if the hardened profile has no image, because its policy would then admit no probe.
fn check_image(profile: Profile, parameters: &Parameters) -> Result<(), Failure> {
    if profile == Profile::Trial {
        return Ok(());
    }
    let why = match parameters.policy.image() {
        "" => "no image is pinned by digest, and the policy would admit no probe".to_owned(),
        image => match image_reference::refusal(image) {
            Some(why) => format!("the installed policy contains the image {image}, which it cannot admit: {why}"),
            None => return Ok(()),
        },
    };
    Err(Failure::usage(
        "Setting up the hardened profile",
        why,
        "Add --image REGISTRY/PATH@sha256:DIGEST, or use --profile trial, which needs no image.",
    ))
}

/// Asks the user. If the user declines, returns the output of the command.
async fn ask(prompt: &dyn Prompt, plan: &str) -> Option<SetupOutput> {
    // The plan quotes names from the cluster.
    let plan = clean_keeping_lines(plan);
    let why = match prompt.ask(&plan).await {
        ConsentAnswer::Yes(_) => return None,
        ConsentAnswer::No(why) => why,
        ConsentAnswer::Nobody | ConsentAnswer::Deferred => "no user can be asked".to_owned(),
    };
    let text = format!("{plan}\n\nNothing was changed: {why}.");
    let json = json!({"objects": [], "declined": why, "plan": plan});
    Some(SetupOutput { text, json, names: Vec::new(), is_manifest: false, notes: Vec::new(), is_done: false })
}

fn report(
    applied: &[Applied],
    profile: Option<Profile>,
    connection: &Connection,
    settings: &Settings,
    notes: Vec<String>,
) -> SetupOutput {
    let namespace = &settings.probe_namespace;
    let line = |(object, change): &Applied| format!("{:<9}  {object}", change.as_str());
    let lines: Vec<_> = applied.iter().map(line).collect();
    let mut text = lines.join("\n");
    if applied.is_empty() {
        text = format!("There is no set-up in namespace {namespace}.");
    } else if profile.is_some() {
        text.push_str(&match settings.archive {
            Some(_) => "\n\nThis was an exercise on the demo cluster, which ends with this command.".to_owned(),
            None => format!("\n\nNext, run: {} doctor", program(settings)),
        });
    }
    let object = |(ObjectRef { resource, namespace, name }, change): &Applied| {
        let mut object = json!({"kind": resource.kind, "name": name, "result": change.as_str()});
        if let Some(namespace) = namespace {
            object["namespace"] = namespace.as_str().into();
        }
        object
    };
    let json = json!({
        "context": connection.context, "server": connection.server, "profile": profile.map(Profile::as_str),
        "namespace": namespace, "objects": applied.iter().map(object).collect::<Vec<_>>(), "notes": notes,
    });
    let names =
        applied.iter().map(|(object, _)| format!("{}/{}", object.resource.kind.to_lowercase(), object.name)).collect();
    SetupOutput { text, json, names, is_manifest: false, notes, is_done: true }
}

async fn remove(settings: &Settings, connection: &Connection, prompt: &dyn Prompt) -> Result<SetupOutput, Failure> {
    let namespace = &settings.probe_namespace;
    let found = uninstall::find(connection, namespace).await?;
    let mut notes = Vec::new();
    if !found.others.is_empty() {
        let names: Vec<_> = found.others.iter().map(ToString::to_string).collect();
        let label = format!("{}={}", LABEL.0, LABEL.1);
        notes.push(format!("Not removed, because setup did not create them (no label {label}): {}", names.join(", ")));
    }
    if !found.kept.is_empty() {
        let names: Vec<_> = found.kept.iter().map(ToString::to_string).collect();
        notes.push(format!(
            "These objects are kept, because without them namespace {namespace} would admit every pod: {}. Delete the \
                namespace first, or restore the label of the namespace.",
            names.join(", ")
        ));
    }
    if !found.ours.is_empty() {
        let mut plan = format!("{}\nRemoves:\n", place(connection));
        for (object, _) in &found.ours {
            plan.push_str(&format!("  delete  {object}\n"));
        }
        for what in &found.with_namespace {
            plan.push_str(&format!("  delete  {what} (in namespace {namespace})\n"));
        }
        plan.push_str(&notes.join("\n"));
        if let Some(declined) = ask(prompt, plan.trim_end()).await {
            return Ok(declined);
        }
    }
    let removed = uninstall::remove(connection, &found.ours).await?;
    notes.extend(found.with_namespace.iter().map(|what| format!("{what} was deleted with the namespace.")));
    Ok(report(&removed, None, connection, settings, notes))
}

/// Returns the next step of a user who may not remove the set-up.
fn by_administrator(settings: &Settings) -> String {
    format!("An administrator of the cluster must run: {} setup --uninstall", program(settings))
}

/// Returns the program with the settings that select the cluster and the namespace.
pub(crate) fn program(settings: &Settings) -> String {
    let Settings { probe_namespace: namespace, context, .. } = settings;
    let mut words = vec!["gpu-syringe".to_owned()];
    if namespace != "gpu-syringe" {
        words.extend(["--probe-namespace".to_owned(), shell_quoted(namespace)]);
    }
    if let Some(context) = context {
        words.extend(["--context".to_owned(), shell_quoted(context)]);
    }
    words.join(" ")
}
