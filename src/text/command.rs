//! `shorten`: reduces a command line to the program, the names of the options, and values that are harmless.
//!
//! Command lines contain passwords and tokens that no pattern recognizes completely. Therefore, only known words are
//! shown, and each other word becomes `…`.

use std::sync::LazyLock;

use super::clean;
use super::secrets::is_of_secret;
use crate::tsv::list;

/// Maximum length of a command line.
pub const MAX: usize = 160;

/// Placeholder for omitted words.
const LEFT_OUT: &str = "…";

/// Maximum length of the name of an option.
const MAX_NAME: usize = 40;

/// Maximum length of the name of a program, script or module.
const MAX_FILE: usize = 64;

/// Endings of scripts.
const SCRIPTS: [&str; 8] = [".py", ".sh", ".jar", ".js", ".rb", ".pl", ".lua", ".jl"];

/// Options whose values only describe the layout of a job. The names are written with dashes instead of underscores.
static HARMLESS: LazyLock<Vec<&str>> = LazyLock::new(|| list(include_str!("data/layout_options.tsv")).collect());

/// Words that are allowed as values.
const WORDS: [&str; 12] =
    ["auto", "true", "false", "half", "bf16", "fp8", "fp16", "fp32", "float16", "bfloat16", "float32", "gpu"];

/// Shortens a command line. A command line that was already shortened is not changed.
pub fn shorten<'a>(words: impl IntoIterator<Item = &'a str>) -> String {
    // A program can put all its words into one argument. Therefore, arguments with spaces are split, and each word is
    // checked.
    let mut words = words.into_iter().flat_map(str::split_whitespace).filter(|word| !word.is_empty());
    let Some(program) = words.next() else { return String::new() };
    let program = file_name(program).unwrap_or(LEFT_OUT);
    let mut line = vec![program.to_owned()];
    let mut before = "";
    let mut script = false;
    for word in words {
        let is_value = is_long_option(before) && !before.contains('=');
        // A secret may begin with a dash.
        let is_secret = before.starts_with('-') && !before.contains('=') && is_of_secret(before);
        let shown = match word {
            _ if is_value && !word.starts_with('-') => value(before, word).map(str::to_owned),
            _ if is_secret => None,
            _ if word.starts_with("--") => option(word),
            _ if word.starts_with('-') => short(word).map(str::to_owned),
            _ if script => None,
            _ => {
                let name = file_name(word).filter(|name| match before {
                    "-m" => *name == word,
                    _ => SCRIPTS.iter().any(|ending| name.ends_with(ending)),
                });
                script = name.is_some();
                name.map(str::to_owned)
            }
        };
        // An omitted word does not affect the next word, so a second pass changes nothing.
        before = if shown.is_some() { word } else { LEFT_OUT };
        match shown {
            Some(shown) => line.push(shown),
            None if line.last().is_some_and(|last| last.ends_with(LEFT_OUT)) => {}
            None => line.push(LEFT_OUT.to_owned()),
        }
    }
    clean(&line.join(" "), MAX)
}

/// Returns the last part of a path, if it contains only plain characters.
fn file_name(word: &str) -> Option<&str> {
    let name = word.rsplit('/').next()?;
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-' | b'+' | b':');
    (!name.is_empty() && name.len() <= MAX_FILE && name.bytes().all(plain)).then_some(name)
}

fn is_long_option(word: &str) -> bool {
    word.starts_with("--")
}

/// Returns `--name`, or `--name=value` with the value if it is harmless.
fn option(word: &str) -> Option<String> {
    let (name, given) = word.split_once('=').map_or((word, None), |(name, given)| (name, Some(given)));
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    if name.len() < 3 || name.len() > MAX_NAME || !name.bytes().all(plain) {
        return None;
    }
    match given {
        Some(given) if value(name, given).is_none() => Some(format!("{name}={LEFT_OUT}")),
        _ => Some(word.to_owned()),
    }
}

/// Returns a short option such as `-u`. `None` for a longer word, because its name and its value cannot be separated.
fn short(word: &str) -> Option<&str> {
    word.get(..2).filter(|start| word.len() == 2 && start.as_bytes()[1].is_ascii_alphabetic())
}

/// Returns the value, if it is known to be harmless.
fn value<'a>(option: &str, given: &'a str) -> Option<&'a str> {
    let name = option.trim_start_matches('-').to_ascii_lowercase().replace('_', "-");
    let number = given.len() <= 12
        && given.starts_with(|first: char| first.is_ascii_digit())
        && given.bytes().all(|byte| byte.is_ascii_digit() || matches!(byte, b'.' | b',' | b'e' | b'-' | b'+'));
    (HARMLESS.contains(&name.as_str()) && (number || WORDS.contains(&given))).then_some(given)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::shorten;

    fn of(line: &str) -> String {
        shorten([line])
    }

    #[test]
    fn the_program_its_options_and_harmless_values_are_shown() {
        for (line, expected) in [
            ("python3 -u train.py --config /etc/job/llm-70b.yaml", "python3 -u train.py --config …"),
            ("/opt/conda/bin/python3 -m ipykernel_launcher -f /run/k.json", "python3 -m ipykernel_launcher -f …"),
            (
                "torchrun --nproc_per_node=8 --nnodes 2 /app/train.py --lr 3e-4",
                "torchrun --nproc_per_node=8 --nnodes 2 train.py --lr 3e-4",
            ),
            ("python3 pretrain.py --nodes 18", "python3 pretrain.py --nodes 18"),
            ("vllm serve --api-key abc --model x/y --dtype bf16", "vllm … --api-key … --model … --dtype bf16"),
            ("mysql -phunter2 -u root", "mysql … -u …"),
            ("app --password=hunter2", "app --password=…"),
            ("app --token -abc", "app --token …"),
            ("curl https://user:pw@x", "curl …"),
            ("", ""),
        ] {
            assert_eq!(of(line), expected, "{line}");
            assert_eq!(of(expected), expected, "a second pass changes nothing");
        }
        assert_eq!(shorten(["python3", "run.py", "--prompt", "a b --c d"]), "python3 run.py --prompt … --c …");
    }

    proptest! {
        /// An unknown word is never shown.
        #[test]
        fn a_secret_word_never_shows(
            before in prop::collection::vec("(--?[a-z]{1,8}(=[a-z0-9]{0,5})?)|[a-z/]{1,9}(\\.py)?", 0..5),
            after in prop::collection::vec("--?[a-z]{1,8}", 0..3),
            glued in prop::sample::select(vec!["", "--password=", "-p", "x=", "/a/", "https://"]),
        ) {
            let secret = format!("{glued}Zq9Zq9Zq9!");
            let words: Vec<&str> = std::iter::once("python3")
                .chain(before.iter().map(String::as_str))
                .chain([secret.as_str()])
                .chain(after.iter().map(String::as_str))
                .collect();
            let line = shorten(words.iter().copied());
            prop_assert!(!line.contains("Zq9"), "{line}");
            prop_assert_eq!(shorten([line.as_str()]), line);
        }
    }
}
