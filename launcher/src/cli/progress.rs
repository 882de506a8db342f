//! `show`, `of_phases`: show progress on a terminal: a spinner with the phase and its seconds, or a bar for many nodes.
//! `clear`: removes it. `Messages`: writes messages to standard error that the progress line does not overwrite.

use std::io::Write;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::probe::{OnPhase, Phase};
use crate::terminal::detect;

/// Time between two frames of the spinner.
const TICK: Duration = Duration::from_millis(100);
/// The last character is shown after the spinner has stopped.
const SPINNER: &str = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏ ";
const ASCII_SPINNER: &str = "-\\|/ ";

/// The progress line on standard error. The line is hidden before [`show`] is called, and without a terminal.
static BAR: LazyLock<ProgressBar> = LazyLock::new(|| ProgressBar::with_draw_target(None, ProgressDrawTarget::hidden()));

/// Shows the progress of the following calls.
pub(super) fn show() {
    // A bar without a style and a message would be drawn as an empty bar before the first message.
    BAR.finish_and_clear();
    BAR.set_draw_target(ProgressDrawTarget::stderr());
}

/// Returns a callback that shows each phase. `image` is the image that the node may have to pull.
pub(super) fn of_phases(image: String) -> OnPhase {
    Arc::new(move |phase| {
        let (done, total) = phase.position();
        if done == total {
            return clear();
        }
        let text = match phase {
            Phase::Pull => format!("pulling image {image}"),
            phase => phase.description(),
        };
        if let Phase::Nodes { done, total } = phase {
            // The bar of a call about many nodes changes a thousand times, so its style and its thread are created
            // once.
            if !BAR.is_finished() && BAR.length() == Some(total.into()) {
                return BAR.set_position(done.into());
            }
            BAR.set_style(style("{spinner} {bar:30} {pos} of {len} nodes, {seconds}"));
            BAR.set_length(total.into());
            BAR.set_position(done.into());
        } else {
            BAR.set_style(style("{spinner} {msg}, {seconds}"));
            BAR.reset_elapsed();
        }
        BAR.set_message(text);
        if BAR.is_finished() {
            BAR.reset();
        }
        BAR.enable_steady_tick(TICK);
    })
}

fn style(template: &str) -> ProgressStyle {
    let seconds = |state: &indicatif::ProgressState, text: &mut dyn std::fmt::Write| {
        let _ = write!(text, "{} s", state.elapsed().as_secs());
    };
    let (spinner, bar) = if detect::is_ascii() { (ASCII_SPINNER, "#- ") } else { (SPINNER, "█░ ") };
    let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_spinner());
    style.with_key("seconds", seconds).tick_chars(spinner).progress_chars(bar)
}

pub(super) fn clear() {
    BAR.disable_steady_tick();
    BAR.finish_and_clear();
}

/// Standard error for messages, which the progress line does not overwrite.
#[derive(Clone, Copy, Debug)]
pub(super) struct Messages;

impl Write for Messages {
    fn write(&mut self, text: &[u8]) -> std::io::Result<usize> {
        BAR.suspend(|| std::io::stderr().write_all(text)).map(|()| text.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        std::io::stderr().flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_templates_are_valid_and_every_phase_is_shown() {
        for template in ["{spinner} {bar:30} {pos} of {len} nodes, {seconds}", "{spinner} {msg}, {seconds}"] {
            assert!(ProgressStyle::with_template(template).is_ok(), "{template}");
        }
        let on_phase = of_phases("registry/node-probe:1".to_owned());
        on_phase(Phase::Start);
        assert_eq!(BAR.message(), "waiting for the probe container to start");
        on_phase(Phase::Pull);
        assert_eq!(BAR.message(), "pulling image registry/node-probe:1");
        on_phase(Phase::Nodes { done: 2, total: 5 });
        assert_eq!((BAR.position(), BAR.length()), (2, Some(5)));
        on_phase(Phase::Remove);
        assert!(BAR.is_finished());
        on_phase(Phase::Create);
        assert!(!BAR.is_finished());
        clear();
    }
}
