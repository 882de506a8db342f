//! `required`, `version`: read the CUDA version that an image requires (`Version`).
//! `first_driver`: the first driver that supports a CUDA version.
//!
//! An image states its requirement in `NVIDIA_REQUIRE_CUDA` (`cuda>=12.8 …`). Before the NVIDIA Container Toolkit
//! starts a container, it compares this requirement with the CUDA version of the driver, which NVML also reports.

/// CUDA versions (major, minor), each with the first Linux driver that supports it, newest first.
///
/// Source: NVIDIA, CUDA Toolkit Release Notes, table "CUDA Toolkit and Corresponding Driver Versions", row of the first
/// release (GA) of each version, <https://docs.nvidia.com/cuda/cuda-toolkit-release-notes/>. The rows of versions
/// before 12 are from the archived release notes.
const FIRST_DRIVERS: [(u32, u32, &str); 24] = [
    (13, 3, "610.43.02"),
    (13, 2, "595.45.04"),
    (13, 1, "590.44.01"),
    (13, 0, "580.65.06"),
    (12, 9, "575.51.03"),
    (12, 8, "570.26"),
    (12, 6, "560.28.03"),
    (12, 5, "555.42.02"),
    (12, 4, "550.54.14"),
    (12, 3, "545.23.06"),
    (12, 2, "535.54.03"),
    (12, 1, "530.30.02"),
    (12, 0, "525.60.13"),
    (11, 8, "520.61.05"),
    (11, 7, "515.43.04"),
    (11, 6, "510.39.01"),
    (11, 5, "495.29.05"),
    (11, 4, "470.42.01"),
    (11, 3, "465.19.01"),
    (11, 2, "460.27.03"),
    (11, 1, "455.23.05"),
    (11, 0, "450.36.06"),
    (10, 2, "440.33"),
    (10, 1, "418.39"),
];

/// A CUDA version: major, minor.
pub(crate) type Version = (u32, u32);

/// Text in front of the condition that is not met, in messages of the toolkit.
const MARK: &str = "unsatisfied condition:";

/// Returns the CUDA version that a message of the toolkit requires:
/// `unsatisfied condition: cuda>=12.8, please update …`.
pub(crate) fn required(message: &str) -> Option<Version> {
    let lower = message.to_ascii_lowercase();
    let (_, condition) = lower.split_once(MARK)?;
    let rest = condition.trim_start().strip_prefix("cuda")?.trim_start();
    // Only `>=` determines which driver is sufficient.
    version(rest.strip_prefix(">=")?.trim_start())
}

/// Parses `12.8`. Text after the version is ignored.
pub(crate) fn version(text: &str) -> Option<Version> {
    let (major, rest) = number(text)?;
    let minor = rest.strip_prefix('.').and_then(number).map_or(0, |(minor, _)| minor);
    Some((major, minor))
}

/// Returns the number at the start of a text, and the rest of the text.
fn number(text: &str) -> Option<(u32, &str)> {
    let digits = text.find(|next: char| !next.is_ascii_digit()).unwrap_or(text.len());
    Some((text[..digits].parse().ok()?, &text[digits..]))
}

/// Returns the first driver that supports a CUDA version. `None` if the version is not in the table.
///
/// A version between two rows (for example 12.7, for which there is no toolkit) needs the driver of the next row.
pub(crate) fn first_driver(wanted: Version) -> Option<&'static str> {
    let (oldest, newest) = (FIRST_DRIVERS.last()?, FIRST_DRIVERS.first()?);
    if wanted > (newest.0, newest.1) || wanted < (oldest.0, oldest.1) {
        return None;
    }
    let enough = FIRST_DRIVERS.iter().rev().find(|(major, minor, _)| (*major, *minor) >= wanted);
    enough.map(|(.., driver)| *driver)
}

#[cfg(test)]
mod tests {
    use super::{FIRST_DRIVERS, first_driver, required, version};

    /// Splits a driver version into numbers for comparison.
    fn parts(driver: &str) -> Vec<u32> {
        driver.split('.').map(|part| part.parse().expect("a number")).collect()
    }

    #[test]
    fn newer_cuda_versions_need_newer_drivers() {
        for pair in FIRST_DRIVERS.windows(2) {
            assert!((pair[0].0, pair[0].1) > (pair[1].0, pair[1].1), "{pair:?}");
            assert!(parts(pair[0].2) > parts(pair[1].2), "{pair:?}");
        }
    }

    #[test]
    fn the_required_version_is_read_from_the_toolkits_message() {
        for (message, expected) in [
            ("requirement error: unsatisfied condition: cuda>=12.8, please update your driver", Some((12, 8))),
            ("requirement error: unsatisfied condition: cuda >= 9.0", Some((9, 0))),
            ("Unsatisfied Condition: cuda>=13", Some((13, 0))),
            ("unsatisfied condition: cuda>=12.8 (cuda=12.4)", Some((12, 8))),
            ("unsatisfied condition: cuda<12", None),
            ("unsatisfied condition: brand=tesla", None),
            ("unsatisfied condition: cuda>=", None),
            ("cuda>=12.8", None),
        ] {
            assert_eq!(required(message), expected, "{message}");
        }
        assert_eq!((version("13.2"), version("x")), (Some((13, 2)), None));
    }

    #[test]
    fn versions_outside_the_table_have_no_first_driver() {
        assert_eq!(first_driver((12, 8)), Some("570.26"));
        assert_eq!(first_driver((12, 7)), Some("570.26"));
        assert_eq!(first_driver((99, 0)), None);
        assert_eq!(first_driver((8, 0)), None);
    }
}
