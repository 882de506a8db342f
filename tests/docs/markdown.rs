//! `pages`, `page`: read the Markdown files of the repository: anchors of headings, links, code in the text and code
//! blocks.

use std::ops::Range;
use std::path::{Path, PathBuf};

use pulldown_cmark::{CodeBlockKind, Event, Options, Parser, Tag, TagEnd};

/// Folders with files that were built or downloaded.
const NOT_OURS: [&str; 4] = ["target", "node_modules", "dist", "programs"];

/// A Markdown file.
pub(crate) struct Page {
    /// Path from the root of the repository, with `/`.
    pub(crate) path: String,
    /// Anchors of the headings, as on GitHub.
    pub(crate) anchors: Vec<String>,
    /// Destinations of links and images.
    pub(crate) links: Vec<Located>,
    /// Code in the text.
    pub(crate) spans: Vec<Located>,
    /// Code in block quotes.
    pub(crate) quoted: Vec<Located>,
    /// Code blocks.
    pub(crate) blocks: Vec<Block>,
}

/// A text and the number of its first line.
#[derive(Clone, Debug)]
pub(crate) struct Located {
    pub(crate) text: String,
    pub(crate) line: usize,
}

/// A code block.
pub(crate) struct Block {
    /// The language after the fence; empty for an indented block.
    pub(crate) language: String,
    pub(crate) text: String,
    pub(crate) line: usize,
}

/// Returns the root folder of the repository.
pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// Returns every Markdown file of the repository, sorted by path.
pub(crate) fn pages() -> Vec<Page> {
    let mut files = Vec::new();
    collect(&root(), &mut files);
    files.sort();
    files.iter().map(|file| read(file)).collect()
}

/// Reads the page with this path.
pub(crate) fn page(path: &str) -> Page {
    read(&root().join(path))
}

fn collect(folder: &Path, into: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let entry = entry.unwrap();
        let name = entry.file_name().to_string_lossy().into_owned();
        let kind = entry.file_type().unwrap();
        if kind.is_dir() && !name.starts_with('.') && !NOT_OURS.contains(&name.as_str()) {
            collect(&entry.path(), into);
        } else if kind.is_file() && name.ends_with(".md") {
            into.push(entry.path());
        }
    }
}

fn read(file: &Path) -> Page {
    let text = std::fs::read_to_string(file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    let relative = file.strip_prefix(root()).unwrap();
    let path = relative.components().map(|part| part.as_os_str().to_string_lossy()).collect::<Vec<_>>().join("/");
    parse(path, without_front_matter(&text))
}

/// Replaces the lines between the two `---` at the start of a skill with empty lines, so that line numbers do not
/// change.
fn without_front_matter(text: &str) -> String {
    let Some(end) = text.strip_prefix("---\n").and_then(|rest| rest.find("\n---\n")) else { return text.to_owned() };
    let end = end + "---\n".len() + "\n---\n".len();
    "\n".repeat(text[..end].matches('\n').count()) + &text[end..]
}

fn parse(path: String, text: String) -> Page {
    let line = |range: &Range<usize>| text[..range.start].matches('\n').count() + 1;
    let (mut anchors, mut links, mut spans, mut quoted, mut blocks) =
        (Vec::new(), Vec::new(), Vec::new(), Vec::new(), Vec::<Block>::new());
    let (mut heading, mut in_block, mut quotes): (Option<String>, bool, u32) = (None, false, 0);
    for (event, range) in Parser::new_ext(&text, Options::ENABLE_TABLES).into_offset_iter() {
        match event {
            Event::Start(Tag::Heading { .. }) => heading = Some(String::new()),
            Event::End(TagEnd::Heading(_)) => anchors.push(anchor(&heading.take().unwrap_or_default(), &anchors)),
            Event::Start(Tag::Link { dest_url, .. } | Tag::Image { dest_url, .. }) => {
                links.push(Located { text: dest_url.into_string(), line: line(&range) });
            }
            Event::Start(Tag::BlockQuote(_)) => quotes += 1,
            Event::End(TagEnd::BlockQuote(_)) => quotes -= 1,
            Event::Start(Tag::CodeBlock(kind)) => {
                let language = match kind {
                    CodeBlockKind::Fenced(language) => language.into_string(),
                    CodeBlockKind::Indented => String::new(),
                };
                in_block = true;
                blocks.push(Block { language, text: String::new(), line: line(&range) });
            }
            Event::End(TagEnd::CodeBlock) => in_block = false,
            Event::Text(text) if in_block => {
                if let Some(block) = blocks.last_mut() {
                    block.text.push_str(&text);
                }
            }
            Event::Text(text) => heading.iter_mut().for_each(|heading| heading.push_str(&text)),
            Event::Code(text) => {
                heading.iter_mut().for_each(|heading| heading.push_str(&text));
                let span = Located { text: text.into_string(), line: line(&range) };
                if quotes > 0 {
                    quoted.push(span.clone());
                }
                spans.push(span);
            }
            _ => {}
        }
    }
    Page { path, anchors, links, spans, quoted, blocks }
}

/// Returns the anchor that GitHub creates for a heading.
fn anchor(heading: &str, taken: &[String]) -> String {
    let kept = |letter: &char| letter.is_alphanumeric() || matches!(letter, ' ' | '-' | '_');
    let plain: String = heading.trim().to_lowercase().chars().filter(kept).collect();
    let plain = plain.replace(' ', "-");
    let numbered = |number: usize| if number == 0 { plain.clone() } else { format!("{plain}-{number}") };
    (0..).map(numbered).find(|name| !taken.contains(name)).unwrap_or_default()
}

#[test]
fn a_page_is_read_as_github_shows_it() {
    let text = "# A `b`: C_d!\n\n## Twice\n\n## Twice\n\n[x](y.md#z) `src/a`\n\n> `quoted`\n\n```console\n$ one\n```\n\n    two\n";
    let page = parse("x.md".into(), without_front_matter(&format!("---\nname: x\n---\n{text}")));
    assert_eq!(page.anchors, ["a-b-c_d", "twice", "twice-1"]);
    assert_eq!((page.links[0].text.as_str(), page.links[0].line), ("y.md#z", 10));
    let of = |all: &[Located]| all.iter().map(|one| one.text.clone()).collect::<Vec<_>>();
    assert_eq!(
        (of(&page.spans), of(&page.quoted)),
        (vec!["b".into(), "src/a".into(), "quoted".into()], vec!["quoted".into()])
    );
    let blocks: Vec<_> = page.blocks.iter().map(|block| (block.language.as_str(), block.text.as_str())).collect();
    assert_eq!(blocks, [("console", "$ one\n"), ("", "two\n")]);
}
