//! `EventTable`: the events of a log while the log is being read, and the texts that were already parsed.

use std::collections::HashMap;
use std::rc::Rc;

use foldhash::fast::RandomState;

use crate::kernel_log::event_group;
use crate::kernel_log::event_group::{EventGroup, Key, Variant};
use crate::kernel_log::known_text::KnownText;
use crate::kernel_log::line::Line;
use crate::kernel_log::line_time::LineTime;

/// Maximum number of texts that are kept. A log storm repeats few distinct texts. Further texts are parsed each time.
const MAX_TEXTS: usize = 4096;

/// The events, with an index by key and by text.
#[derive(Debug)]
pub(super) struct EventTable {
    max_events: usize,
    groups: Vec<EventGroup>,
    by_key: HashMap<Rc<Key>, usize, RandomState>,
    /// One map for each boot.
    texts: Vec<HashMap<Rc<str>, KnownText, RandomState>>,
    known_texts: usize,
    omitted: u64,
    /// Lines counted so far.
    counted: u64,
}

impl EventTable {
    pub(super) fn new(max_events: usize) -> Self {
        Self {
            max_events,
            groups: Vec::new(),
            by_key: HashMap::default(),
            texts: Vec::new(),
            known_texts: 0,
            omitted: 0,
            counted: 0,
        }
    }

    /// Returns the groups of the events that were counted until now.
    pub(super) fn groups(&self) -> &[EventGroup] {
        &self.groups
    }

    /// Counts a text that was parsed before. Returns `false` if the text is new.
    #[inline]
    pub(super) fn count_known(&mut self, text: &str, source: usize, moment: LineTime, boot: usize) -> bool {
        let Some(known) = self.texts.get_mut(boot).and_then(|texts| texts.get_mut(text)) else { return false };
        if !known.is_in_another_log(source, moment) {
            known.note(source, moment);
            if let Some(group) = self.groups.get_mut(known.group) {
                self.counted += 1;
                group.count(&known.variant, moment, self.counted);
            }
        }
        true
    }

    /// Counts a line with a new text.
    pub(super) fn add(&mut self, text: &str, line: Line, source: usize, moment: LineTime, boot: usize) {
        let variant = Rc::new(Variant::new(text, &line));
        let key = Key::of(line, boot);
        let group = match self.by_key.get(&key) {
            Some(&group) => group,
            None => self.add_group(key),
        };
        if let Some(group) = self.groups.get_mut(group) {
            self.counted += 1;
            group.count(&variant, moment, self.counted);
        }
        if self.known_texts < MAX_TEXTS {
            self.known_texts += 1;
            let mut known = KnownText::new(group, Rc::clone(&variant));
            known.note(source, moment);
            if self.texts.len() <= boot {
                self.texts.resize_with(boot + 1, HashMap::default);
            }
            self.texts[boot].insert(Rc::clone(&variant.text), known);
        }
    }

    fn add_group(&mut self, key: Key) -> usize {
        // Dropping events only at twice the limit keeps the cost per line small.
        if self.groups.len() >= self.max_events.saturating_mul(2) {
            self.drop_beyond(self.max_events);
        }
        let key = Rc::new(key);
        self.groups.push(EventGroup::new(Rc::clone(&key)));
        self.by_key.insert(key, self.groups.len() - 1);
        self.groups.len() - 1
    }

    /// Moves the events of one boot to another boot. `correct`: corrects the times of an event.
    pub(super) fn move_boot(&mut self, from: usize, to: usize, correct: impl Fn(&mut EventGroup)) {
        for at in 0..self.groups.len() {
            if self.groups[at].key.boot != from {
                continue;
            }
            let empty = EventGroup::new(Rc::clone(&self.groups[at].key));
            let mut group = std::mem::replace(&mut self.groups[at], empty);
            self.by_key.remove(&group.key);
            group.set_boot(to);
            correct(&mut group);
            match self.by_key.get(&group.key) {
                // The position of the event stays in the list, because texts refer to positions.
                Some(&known) => self.groups[known].join(group),
                None => {
                    self.by_key.insert(Rc::clone(&group.key), at);
                    self.groups[at] = group;
                }
            }
        }
        if let Some(texts) = self.texts.get_mut(from) {
            self.known_texts = self.known_texts.saturating_sub(texts.len());
            texts.clear();
        }
    }

    /// Keeps the `most` most important and newest events.
    fn drop_beyond(&mut self, most: usize) {
        if self.groups.len() <= most {
            return;
        }
        self.groups.retain(|group| group.times() > 0);
        self.groups.sort_by_cached_key(|group| std::cmp::Reverse(group.rank()));
        self.omitted += u64::try_from(self.groups.len().saturating_sub(most)).unwrap_or(u64::MAX);
        self.groups.truncate(most);
        self.texts.clear();
        self.known_texts = 0;
        self.by_key = self.groups.iter().enumerate().map(|(at, group)| (Rc::clone(&group.key), at)).collect();
    }

    /// Merges the parts of events. Returns the events and the number of omitted events.
    pub(super) fn finish(mut self) -> (Vec<EventGroup>, u64) {
        self.groups.retain(|group| group.times() > 0);
        event_group::merge(
            &mut self.groups,
            Key::is_anonymous_part_of,
            |part, whole| whole.covers(part),
            EventGroup::absorb,
        );
        let as_often = |part: &EventGroup, whole: &EventGroup| part.times() <= whole.times();
        event_group::merge(&mut self.groups, Key::is_second_line_of, as_often, EventGroup::take_texts);
        self.drop_beyond(self.max_events);
        (self.groups, self.omitted)
    }
}
