//! `is_optional`: whether the verdict `healthy` is possible without an input, from `optional_inputs.tsv`.

use syringe_core::report::Problem;
use syringe_core::section_name::SectionName;
use syringe_core::tsv;

const TABLE: &str = include_str!("optional_inputs.tsv");

/// Returns whether the verdict `healthy` is possible without the input that failed.
pub(crate) fn is_optional(section: SectionName, problem: &Problem) -> bool {
    let is_it = |row: Vec<&str>| row.first() == Some(&section.as_str()) && row.get(1) == Some(&problem.code.as_str());
    tsv::rows(TABLE).any(is_it)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_names_a_section_and_a_reason() {
        for row in tsv::rows(TABLE) {
            let [section, code, why] = row.as_slice() else { panic!("{row:?}") };
            assert!(SectionName::ALL.iter().any(|name| name.as_str() == *section) && !code.is_empty(), "{row:?}");
            assert!(why.split(' ').count() > 3, "{row:?}");
        }
    }
}
