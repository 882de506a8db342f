//! What the program does, on a terminal.

use std::io::{IsTerminal, Write};
use std::sync::Arc;

use crate::probe::OnPhase;

/// Shows the phases on a terminal, and not in a pipe.
pub(super) fn phases_on_terminal() -> OnPhase {
    let terminal = std::io::stderr().is_terminal();
    Arc::new(move |phase| {
        if terminal {
            let text = phase.description();
            let _ = write!(std::io::stderr(), "\r\x1b[2K{text} …");
            let (done, total) = phase.position();
            if done == total {
                clear_phase();
            }
        }
    })
}

/// Clears the line of the last phase.
pub(super) fn clear_phase() {
    if std::io::stderr().is_terminal() {
        let _ = write!(std::io::stderr(), "\r\x1b[2K");
    }
}
