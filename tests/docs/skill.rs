//! Tests of the skill for coding agents: the front matter that hosts read, and the size of the file.

use crate::markdown::root;

const FILE: &str = "deploy/skill/gpu-syringe/SKILL.md";
/// Maximum number of lines of the skill, because the skill takes space in the context of a model.
const MOST_LINES: usize = 120;
/// Words in users' requests. A host selects the skill because of these words, so the description must contain them.
const WORDS: [&str; 8] = ["Xid", "NCCL", "MIG", "stuck", "pending", "slow", "ECC", "NVLink"];

#[test]
fn a_host_finds_the_skill_by_the_words_that_people_type() {
    let text = std::fs::read_to_string(root().join(FILE)).unwrap();
    assert!(text.lines().count() < MOST_LINES, "{} lines", text.lines().count());
    let front = text.strip_prefix("---\n").and_then(|rest| rest.split_once("\n---\n")).unwrap().0;
    let field =
        |name: &str| front.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_else(|| panic!("no {name}"));
    assert_eq!(field("name: "), "gpu-syringe", "the skill must have the name of its folder");
    let description = field("description: ");
    // The skill format limits the description to this length.
    assert!(description.len() <= 1024, "{} bytes", description.len());
    for word in WORDS {
        assert!(description.contains(word), "the description lacks {word}");
    }
}
