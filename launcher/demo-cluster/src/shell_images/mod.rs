//! `ShellImages`: simulates containers whose image has a shell and a few programs, for tests of `--via inject`.
//!
//! The simulated shell runs only the scripts of `--via inject`, and the scripts of tests that show why simpler scripts
//! would fail.
//!
//! ```text
//! image, input ─▶ container ─▶ commands ─▶ shell ─▶ this module
//! ```

mod commands;
mod container;
mod image;
mod input;
mod shell;

use std::collections::BTreeMap;
use std::time::Duration;

use self::container::Container;
pub use self::image::{Image, Tmp};
use self::input::Input;
use self::shell::Shell;
use crate::programs::{Invocation, NodeProbe, Process, Programs, Streams, base_name};

/// The Debian image by digest.
const PINNED: &str = "docker.io/library/debian@sha256:dddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddd";

/// Images by name. For all other images, [`NodeProbe`] is used.
#[derive(Clone, Debug)]
pub struct ShellImages {
    images: BTreeMap<String, Image>,
}

impl Default for ShellImages {
    fn default() -> Self {
        Self::of([
            ("docker.io/library/debian:12", Image::debian()),
            (PINNED, Image::debian()),
            ("docker.io/library/busybox:1.37", Image::busybox()),
        ])
    }
}

impl ShellImages {
    pub fn of<'a>(images: impl IntoIterator<Item = (&'a str, Image)>) -> Self {
        Self { images: images.into_iter().map(|(name, image)| (name.to_owned(), image)).collect() }
    }
}

impl Programs for ShellImages {
    fn start(&self, invocation: &Invocation, streams: Streams) -> Option<Process> {
        let Invocation { argv, image, facts, files, .. } = invocation;
        let Some(image) = self.images.get(image) else { return NodeProbe.start(invocation, streams) };
        let container = Container { image: image.clone(), files: files.clone(), facts: facts.clone() };
        if !container.image.programs.contains(&base_name(argv.first()?)) {
            return None;
        }
        let argv: Vec<&str> = argv.iter().map(String::as_str).collect();
        match argv[..] {
            ["sh", "-c", script, ref arguments @ ..] => {
                let arguments = arguments.iter().skip(1).map(|word| (*word).to_owned()).collect();
                let shell = Shell::new(container, script, arguments);
                Some(Box::pin(shell.run(Input::new(streams.stdin), streams.stdout, streams.stderr)))
            }
            ["sleep", seconds] => {
                let time = Duration::from_secs(seconds.parse().ok()?);
                Some(Box::pin(async move {
                    let _open = streams;
                    tokio::time::sleep(time).await;
                    0
                }))
            }
            _ => None,
        }
    }
}
