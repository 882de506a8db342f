//! `TerminalPrompt`: asks for consent in a terminal, on standard error, because standard output is for the answer.

use std::io::{BufRead, IsTerminal, Write};

use futures_util::future::BoxFuture;
use tokio::time::timeout;

use super::prompt::{ConsentAnswer, Prompt};
use super::tokens::TOKEN_LIFETIME;

/// The prompt on the terminal of the command.
pub struct TerminalPrompt;

impl Prompt for TerminalPrompt {
    fn ask<'a>(&'a self, plan: &'a str) -> BoxFuture<'a, ConsentAnswer> {
        let plan = plan.to_owned();
        Box::pin(async move {
            if !std::io::stdin().is_terminal() || !std::io::stderr().is_terminal() {
                return ConsentAnswer::No(
                    "standard input is not a terminal, so there is no prompt; pass --yes to confirm".to_owned(),
                );
            }
            let read = tokio::task::spawn_blocking(move || {
                let _ = write!(std::io::stderr(), "\r\x1b[2K{plan}\n\nProceed? Type 'yes' to confirm: ");
                let mut line = String::new();
                std::io::stdin().lock().read_line(&mut line).map(|_| line)
            });
            // The thread that reads cannot be cancelled. This thread ends when the program exits.
            match timeout(TOKEN_LIFETIME, read).await {
                Err(_) => ConsentAnswer::No(format!("there was no answer within {} s", TOKEN_LIFETIME.as_secs())),
                Ok(Ok(Ok(line))) if line.trim().eq_ignore_ascii_case("yes") => ConsentAnswer::Yes("user (terminal)"),
                Ok(_) => ConsentAnswer::No("the answer was not yes".to_owned()),
            }
        })
    }
}
