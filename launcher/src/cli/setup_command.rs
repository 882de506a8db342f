//! `run`: runs `gpu-syringe setup` with a prompt (terminal or `--yes`), and prints its text or its manifests.

use super::output::{Output, note};
use crate::consent::{AlwaysYes, Prompt, TerminalPrompt};
use crate::outcome::Outcome;
use crate::settings::Settings;
use crate::setup::{self, SetupArgs, SetupOutput};
use crate::terminal::page::Page;
use kube_read::Contexts;
use kube_read::Failure;

pub(super) async fn run(
    args: &SetupArgs,
    output: Output,
    settings: &Settings,
    contexts: &Contexts,
) -> Result<Outcome, Failure> {
    let prompt: &dyn Prompt = if args.yes { &AlwaysYes } else { &TerminalPrompt };
    let SetupOutput { text, json, names, is_manifest, notes, is_done } =
        setup::run(args, settings, contexts, prompt).await?;
    if is_manifest {
        output.print_manifests(&json, &text)?;
    } else {
        output.print(&json, &names, || Page::from(text))?;
    }
    notes.iter().for_each(|text| note(text));
    Ok(if is_done { Outcome::NothingFound } else { Outcome::NotDone })
}
