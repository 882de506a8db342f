//! Cuts lists to a number of bytes of JSON, and counts the entries left out.

use serde::Serialize;

/// Cuts `list` to the entries whose JSON takes at most `most_bytes` together; returns how many were removed.
pub(crate) fn truncate<T: Serialize>(list: &mut Vec<T>, most_bytes: usize) -> usize {
    let mut left = most_bytes;
    let fitting = list.iter().take_while(|entry| match left.checked_sub(size(entry) + 1) {
        Some(rest) => {
            left = rest;
            true
        }
        None => false,
    });
    let kept = fitting.count();
    let omitted = list.len() - kept;
    list.truncate(kept);
    omitted
}

/// Length of a value's JSON.
pub(crate) fn size(value: &impl Serialize) -> usize {
    struct Count(usize);
    impl std::io::Write for Count {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0 += bytes.len();
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let mut count = Count(0);
    // Writing to a counter cannot fail. A value that cannot be serialized fails when the answer is serialized.
    let _ = serde_json::to_writer(&mut count, value);
    count.0
}

#[cfg(test)]
mod tests {
    use super::{size, truncate};

    #[test]
    fn entries_that_fit_stay_and_the_others_are_counted() {
        let mut list = vec!["aaaa"; 10];
        assert_eq!(size(&list[0]), 6);
        assert_eq!(truncate(&mut list, 21), 7);
        assert_eq!(list.len(), 3);
    }
}
