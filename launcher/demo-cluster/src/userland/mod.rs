//! Images other than the probe's: a shell and a handful of programs, as far as a probe that is carried in needs them.
//!
//! Not a shell for anything else: it understands the scripts of `syringe/ways/inject`, and what tests say to show why they
//! are as they are.

mod commands;
mod shell;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use node_probe::RELEASE_FILE;
use syringe_core::report::Report;
use tokio::sync::mpsc;

use self::shell::Shell;
use super::files::{File, Files};
use super::programs::{Invocation, NodeProbe, Process, Programs, Streams, base_name};

/// How much of standard input containerd still passes on to a process that has closed its standard output.
const CUT_AFTER_BYTES: usize = 192 * 1024;

/// What an image holds.
#[derive(Clone, Debug)]
pub struct Image {
    /// The programs in its path: `sh`, `tar`, `head`, …
    pub programs: Vec<&'static str>,
    /// Whether it has glibc's loader.
    pub glibc: bool,
    /// Whether the host that it runs on has it.
    pub host_glibc: bool,
    /// The process whose root is the host's and can be entered, such as `/proc/1`; none where there is none.
    pub host_process: Option<&'static str>,
    /// What its `/tmp` allows.
    pub tmp: Tmp,
}

/// What a directory allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tmp {
    /// Everything.
    Usual,
    /// Reading.
    ReadOnly,
    /// Reading and writing.
    NoExec,
}

impl Image {
    /// Everything that a distribution's base image has.
    pub fn debian() -> Self {
        let programs = vec!["sh", "sleep", "tar", "head", "cat", "chmod", "sha256sum", "chroot", "grep"];
        Self { programs, glibc: true, host_glibc: true, host_process: Some("/proc/1"), tmp: Tmp::Usual }
    }

    /// The same programs, without glibc.
    pub fn busybox() -> Self {
        Self { glibc: false, ..Self::debian() }
    }

    /// No shell and no programs.
    pub fn distroless() -> Self {
        Self { programs: Vec::new(), ..Self::debian() }
    }

    /// Without some of its programs.
    #[must_use]
    pub fn without(mut self, programs: &[&str]) -> Self {
        self.programs.retain(|own| !programs.contains(own));
        self
    }

    /// With another `/tmp`.
    #[must_use]
    pub fn with_tmp(mut self, tmp: Tmp) -> Self {
        self.tmp = tmp;
        self
    }
}

/// The images of a cluster, by name, besides those that hold the probe.
#[derive(Clone, Debug)]
pub struct Userland {
    images: BTreeMap<String, Image>,
}

impl Default for Userland {
    fn default() -> Self {
        Self::of([
            ("docker.io/library/debian:12", Image::debian()),
            ("docker.io/library/busybox:1.37", Image::busybox()),
        ])
    }
}

impl Userland {
    /// These images.
    pub fn of<'a>(images: impl IntoIterator<Item = (&'a str, Image)>) -> Self {
        Self { images: images.into_iter().map(|(name, image)| (name.to_owned(), image)).collect() }
    }
}

/// A container, as the programs in it see it.
#[derive(Clone)]
struct Container {
    image: Image,
    files: Files,
    facts: Arc<Report>,
}

impl Programs for Userland {
    fn start(&self, invocation: &Invocation, streams: Streams) -> Option<Process> {
        let Invocation { argv, image, facts, files, .. } = invocation;
        let Some(image) = self.images.get(image) else { return probe(invocation, streams) };
        let container = Container { image: image.clone(), files: files.clone(), facts: facts.clone() };
        if !container.image.programs.contains(&base_name(argv.first()?)) {
            return None;
        }
        let words: Vec<&str> = argv.iter().map(String::as_str).collect();
        match words[..] {
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

/// The probe's own image; `release` works on the container's files, as the real one does.
fn probe(invocation: &Invocation, streams: Streams) -> Option<Process> {
    let released = invocation.argv.get(1).is_some_and(|word| word == "release");
    let files = invocation.files.clone();
    let process = NodeProbe.start(invocation, streams)?;
    if !released {
        return Some(process);
    }
    Some(Box::pin(async move {
        files.put(RELEASE_FILE, File { bytes: Bytes::new(), executable: false });
        process.await
    }))
}

/// Standard input, read piece by piece.
struct Input {
    from: mpsc::Receiver<Bytes>,
    rest: Bytes,
    /// What containerd still lets through; `None` for all of it.
    left: Option<usize>,
}

impl Input {
    fn new(from: mpsc::Receiver<Bytes>) -> Self {
        Self { from, rest: Bytes::new(), left: None }
    }

    /// The process has closed its standard output.
    fn cut(&mut self) {
        self.left = Some(CUT_AFTER_BYTES);
    }

    /// As much as there is, up to `most` bytes.
    async fn read(&mut self, most: usize) -> Vec<u8> {
        let most = most.min(self.left.unwrap_or(usize::MAX));
        let mut all = Vec::new();
        while all.len() < most {
            if self.rest.is_empty() {
                match self.from.recv().await {
                    Some(piece) => self.rest = piece,
                    None => break,
                }
            }
            let piece = self.rest.split_to(self.rest.len().min(most - all.len()));
            all.extend_from_slice(&piece);
        }
        if let Some(left) = &mut self.left {
            *left -= all.len();
        }
        all
    }
}
