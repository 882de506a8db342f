//! Words of a command line against a table of commands and options: which were given, and the help that lists them.
//!
//! `lexopt` splits the words. A larger parser would be a fifth of the probe, which is sent to nodes.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt::Write;
use std::path::PathBuf;
use std::str::FromStr;

/// A command and its options.
pub(crate) struct Command {
    pub(crate) name: &'static str,
    /// One line for the help; none for a command that this program only starts itself.
    pub(crate) about: Option<&'static str>,
    pub(crate) options: &'static [Opt],
    /// Name of the one word that may follow, where one may.
    pub(crate) operand: Option<&'static str>,
}

/// An option.
pub(crate) struct Opt {
    pub(crate) name: &'static str,
    /// What its value is called; none for a switch.
    pub(crate) value: Option<&'static str>,
    pub(crate) about: &'static str,
}

/// What was given: one command and its words.
#[derive(Debug)]
pub(crate) struct Words {
    pub(crate) command: &'static str,
    given: BTreeMap<&'static str, OsString>,
    operand: Option<OsString>,
}

/// Why no command can be made of the words.
#[derive(Debug)]
pub(crate) enum Refusal {
    /// Help or version was asked for: this text.
    Text(String),
    /// The words are wrong, and why.
    Wrong(String),
}

impl From<lexopt::Error> for Refusal {
    fn from(error: lexopt::Error) -> Self {
        Self::Wrong(error.to_string())
    }
}

/// A whole program's table.
pub(crate) struct Table {
    pub(crate) program: &'static str,
    pub(crate) version: &'static str,
    pub(crate) about: &'static str,
    /// Options that every command takes, before or after its name.
    pub(crate) everywhere: &'static [Opt],
    pub(crate) commands: &'static [Command],
}

impl Table {
    /// Reads the words.
    pub(crate) fn read(&self, args: impl Iterator<Item = OsString>) -> Result<Words, Refusal> {
        use lexopt::Arg::{Long, Short, Value};
        let mut parser = lexopt::Parser::from_args(args);
        let mut command: Option<&Command> = None;
        let (mut given, mut operand) = (BTreeMap::new(), None);
        while let Some(arg) = parser.next()? {
            match arg {
                Short('h') | Long("help") => return Err(Refusal::Text(self.help(command))),
                Short('V') | Long("version") => {
                    return Err(Refusal::Text(format!("{} {}\n", self.program, self.version)));
                }
                Long(name) => {
                    let option = self.option(name, command).map_err(Refusal::Wrong)?;
                    let value = if option.value.is_some() { parser.value()? } else { OsString::new() };
                    if given.insert(option.name, value).is_some() {
                        return Err(Refusal::Wrong(format!("--{} was given twice", option.name)));
                    }
                }
                Short(letter) => return Err(Refusal::Wrong(format!("there is no option -{letter}"))),
                Value(word) => match command {
                    None => command = Some(self.command(&word)?),
                    Some(command) if command.operand.is_some() && operand.is_none() => operand = Some(word),
                    Some(command) => {
                        let word = word.to_string_lossy();
                        return Err(Refusal::Wrong(format!("{} does not take '{word}'", command.name)));
                    }
                },
            }
        }
        let command = command.ok_or_else(|| Refusal::Wrong(format!("no command; there are: {}", self.names())))?.name;
        Ok(Words { command, given, operand })
    }

    fn command(&self, word: &OsString) -> Result<&Command, Refusal> {
        let found = word.to_str().and_then(|word| self.commands.iter().find(|command| command.name == word));
        found.ok_or_else(|| {
            let word = word.to_string_lossy();
            Refusal::Wrong(format!("there is no command '{word}'; there are: {}", self.names()))
        })
    }

    fn names(&self) -> String {
        let named: Vec<_> =
            self.commands.iter().filter(|command| command.about.is_some()).map(|command| command.name).collect();
        named.join(", ")
    }

    fn option(&self, name: &str, command: Option<&Command>) -> Result<&Opt, String> {
        let own = command.map(|command| command.options).unwrap_or_default();
        if let Some(option) = own.iter().chain(self.everywhere).find(|option| option.name == name) {
            return Ok(option);
        }
        let elsewhere = self.commands.iter().any(|command| command.options.iter().any(|option| option.name == name));
        Err(match command {
            Some(command) => format!("{} has no option --{name}", command.name),
            None if elsewhere => format!("--{name} belongs after the command"),
            None => format!("there is no option --{name}"),
        })
    }

    fn help(&self, command: Option<&Command>) -> String {
        let mut text = String::new();
        match command {
            None => {
                let _ = writeln!(text, "{}\n\nUsage: {} [OPTIONS] COMMAND\n\nCommands:", self.about, self.program);
                for command in self.commands {
                    if let Some(about) = command.about {
                        let _ = writeln!(text, "  {:<12}{about}", command.name);
                    }
                }
            }
            Some(Command { name, about, options, operand }) => {
                let operand = operand.map(|operand| format!(" {operand}")).unwrap_or_default();
                let about = about.unwrap_or_default();
                let _ = writeln!(
                    text,
                    "{about}\n\nUsage: {} {name} [OPTIONS]{operand}\n\nOptions of {name}:",
                    self.program
                );
                list(&mut text, options);
            }
        }
        text.push_str("\nOptions of every command:\n");
        list(&mut text, self.everywhere);
        text.push_str("  -h, --help\n  -V, --version\n");
        text
    }
}

fn list(text: &mut String, options: &[Opt]) {
    for Opt { name, value, about } in options {
        let value = value.map(|value| format!(" {value}")).unwrap_or_default();
        let _ = writeln!(text, "  --{:<26}{about}", format!("{name}{value}"));
    }
}

impl Words {
    /// Whether a switch was given.
    pub(crate) fn switch(&self, name: &str) -> bool {
        self.given.contains_key(name)
    }

    /// A path.
    pub(crate) fn path(&self, name: &str) -> Option<PathBuf> {
        self.given.get(name).map(PathBuf::from)
    }

    /// A value that reads itself from text.
    pub(crate) fn value<T: FromStr<Err: ToString>>(&self, name: &str) -> Result<Option<T>, Refusal> {
        let Some(given) = self.given.get(name) else { return Ok(None) };
        let text = given.to_string_lossy();
        let read =
            text.parse().map_err(|error: T::Err| Refusal::Wrong(format!("--{name} {text}: {}", error.to_string())));
        read.map(Some)
    }

    /// A value that must be there.
    pub(crate) fn needed<T: FromStr<Err: ToString>>(&self, name: &str) -> Result<T, Refusal> {
        self.value(name)?.ok_or_else(|| Refusal::Wrong(format!("{} needs --{name}", self.command)))
    }

    /// A whole number within bounds.
    pub(crate) fn number(&self, name: &str, usual: u64, least: u64, most: u64) -> Result<u64, Refusal> {
        let number = self.value(name)?.unwrap_or(usual);
        if (least..=most).contains(&number) {
            return Ok(number);
        }
        Err(Refusal::Wrong(format!("--{name} {number}: must be {least} to {most}")))
    }

    /// The word after the command.
    pub(crate) fn operand(&self) -> Option<String> {
        self.operand.as_ref().map(|word| word.to_string_lossy().into_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: Table = Table {
        program: "tool",
        version: "1",
        about: "A tool.",
        everywhere: &[Opt { name: "deep", value: None, about: "Deeply" }],
        commands: &[
            Command {
                name: "dig",
                about: Some("Dig"),
                options: &[Opt { name: "depth", value: Some("N"), about: "How deep" }],
                operand: None,
            },
            Command { name: "fill", about: None, options: &[], operand: Some("WHAT") },
        ],
    };

    fn read(line: &str) -> Result<Words, String> {
        TABLE.read(line.split_whitespace().map(OsString::from)).map_err(|refusal| match refusal {
            Refusal::Text(text) | Refusal::Wrong(text) => text,
        })
    }

    #[test]
    fn options_of_every_command_stand_before_or_after_it() {
        for line in ["--deep dig --depth 3", "dig --depth=3 --deep", "dig --deep --depth 3"] {
            let words = read(line).expect(line);
            assert!(words.command == "dig" && words.switch("deep"), "{line}");
            assert_eq!(words.number("depth", 1, 1, 9).expect(line), 3);
        }
        assert_eq!(read("fill hole").expect("an operand").operand().as_deref(), Some("hole"));
    }

    #[test]
    fn wrong_words_are_named() {
        for (line, words) in [
            ("", "no command; there are: dig"),
            ("climb", "there is no command 'climb'"),
            ("--depth 3 dig", "--depth belongs after the command"),
            ("dig --width 3", "dig has no option --width"),
            ("dig --depth", "missing"),
            ("dig --depth 1 --depth 2", "given twice"),
            ("dig deep", "dig does not take 'deep'"),
            ("dig -x", "no option -x"),
        ] {
            let refusal = read(line).expect_err(line);
            assert!(refusal.contains(words), "{line}: {refusal}");
        }
        let many = read("dig --depth 99").expect("words").number("depth", 1, 1, 9);
        assert!(matches!(many, Err(Refusal::Wrong(why)) if why == "--depth 99: must be 1 to 9"));
    }

    #[test]
    fn the_help_lists_what_people_can_type() {
        let help = read("--help").expect_err("a text");
        assert!(help.contains("dig") && !help.contains("fill"), "{help}");
        assert!(read("dig --help").expect_err("a text").contains("--depth N"));
    }
}
