//! `names`: the names of the CUDA errors whose numbers a message contains.
//! `is_about_one`: whether a line is about a CUDA error.
//!
//! Libraries print the number of an error without its name: `Error 804: …`, `Cuda failure 2`, `UNKNOWN ERROR (303)`.
//! The rows of `data/phrases.tsv` contain the names. Sources: `cudaError_t` and `CUresult` in NVIDIA's CUDA
//! documentation.

/// Numbers of errors, each with the name of the CUDA runtime in lower case.
const NUMBERS: [(u16, &str); 52] = [
    (2, "cudaerrormemoryallocation"),
    (3, "cudaerrorinitializationerror"),
    (34, "cudaerrorstublibrary"),
    (35, "cudaerrorinsufficientdriver"),
    (36, "cudaerrorcallrequiresnewerdriver"),
    (46, "cudaerrordevicesunavailable"),
    (98, "cudaerrorinvaliddevicefunction"),
    (100, "cudaerrornodevice"),
    (101, "cudaerrorinvaliddevice"),
    (102, "cudaerrordevicenotlicensed"),
    (200, "cudaerrorinvalidkernelimage"),
    (209, "cudaerrornokernelimagefordevice"),
    (214, "cudaerroreccuncorrectable"),
    (217, "cudaerrorpeeraccessunsupported"),
    (218, "cudaerrorinvalidptx"),
    (220, "cudaerrornvlinkuncorrectable"),
    (221, "cudaerrorjitcompilernotfound"),
    (222, "cudaerrorunsupportedptxversion"),
    (223, "cudaerrorjitcompilationdisabled"),
    (225, "cudaerrorunsupporteddevsidesync"),
    (226, "cudaerrorcontained"),
    (303, "cudaerrorsharedobjectinitfailed"),
    (304, "cudaerroroperatingsystem"),
    (400, "cudaerrorinvalidresourcehandle"),
    (401, "cudaerrorillegalstate"),
    (500, "cudaerrorsymbolnotfound"),
    (700, "cudaerrorillegaladdress"),
    (701, "cudaerrorlaunchoutofresources"),
    (702, "cudaerrorlaunchtimeout"),
    (710, "cudaerrorassert"),
    (714, "cudaerrorhardwarestackerror"),
    (715, "cudaerrorillegalinstruction"),
    (716, "cudaerrormisalignedaddress"),
    (717, "cudaerrorinvalidaddressspace"),
    (718, "cudaerrorinvalidpc"),
    (719, "cudaerrorlaunchfailure"),
    (720, "cudaerrorcooperativelaunchtoolarge"),
    (721, "cudaerrortensormemoryleak"),
    (800, "cudaerrornotpermitted"),
    (801, "cudaerrornotsupported"),
    (802, "cudaerrorsystemnotready"),
    (803, "cudaerrorsystemdrivermismatch"),
    (804, "cudaerrorcompatnotsupportedondevice"),
    (805, "cudaerrormpsconnectionfailed"),
    (806, "cudaerrormpsrpcfailure"),
    (807, "cudaerrormpsservernotready"),
    (808, "cudaerrormpsmaxclientsreached"),
    (809, "cudaerrormpsmaxconnectionsreached"),
    (810, "cudaerrormpsclientterminated"),
    (900, "cudaerrorstreamcaptureunsupported"),
    (911, "cudaerrorexternaldevice"),
    (999, "cudaerrorunknown"),
];

/// Text before the number of an error that shows that the line is about a CUDA call.
const CALLS: [&str; 9] = [
    "cuda error",
    "cuda failure",
    "cuda runtime",
    "cuda driver",
    "cuda initialization",
    "cudart",
    "cudagetdevicecount",
    "cuinit",
    "cudasetdevice",
];

/// Words directly before the number of an error.
const BEFORE: [&str; 4] = ["error", "failure", "code", "status"];

/// Text with which NCCL reports a CUDA error: `Cuda failure 2 'out of memory'`.
const OF_NCCL: &str = "cuda failure";

/// Returns the CUDA errors that a lower-case message contains by number or in the text of NCCL. Each error is on its
/// own line, in the form of the table rows.
pub(super) fn names(message: &str) -> String {
    let mut names = String::new();
    for line in message.lines() {
        let Some(call) = CALLS.iter().filter_map(|call| line.find(call)).min() else { continue };
        if let Some(name) = numbered(&line[call..]).filter(|name| !line.contains(name)) {
            names.extend(["\n", name]);
        }
        let quoted = line.split_once(OF_NCCL).and_then(|(_, rest)| rest.split('\'').nth(1));
        if let Some(words) = quoted {
            names.extend(["\ncuda error: ", words]);
        }
    }
    names
}

/// Returns the name of the error whose number a lower-case text contains: `error 804: …`, `error: 35`, `unknown error
/// (303)`.
fn numbered(text: &str) -> Option<&'static str> {
    let is_digit = |one: char| one.is_ascii_digit();
    BEFORE.iter().find_map(|word| {
        text.match_indices(word).find_map(|(at, _)| {
            let rest = text[at + word.len()..].trim_start_matches([' ', ':', '(', '=', '#']);
            let digits = &rest[..rest.find(|one| !is_digit(one)).unwrap_or(rest.len())];
            let ends = !rest[digits.len()..].starts_with(|next: char| next.is_ascii_alphanumeric() || next == '_');
            let number: u16 = digits.parse().ok().filter(|_| ends)?;
            NUMBERS.iter().find(|(known, _)| *known == number).map(|(_, name)| *name)
        })
    })
}

/// Returns whether a line is about a CUDA error, by name, by number, or as a warning of the CUDA initialization.
pub(crate) fn is_about_one(line: &str) -> bool {
    let line = line.to_ascii_lowercase();
    ["cudaerror", "cuda_error", "cuda initialization:", "cudagetdevicecount"].iter().any(|words| line.contains(words))
        || !names(&line).is_empty()
}

#[cfg(test)]
mod tests {
    use super::{NUMBERS, names};
    use crate::messages::phrases::{Part, known};

    #[test]
    fn each_number_has_a_row_with_its_name() {
        for (number, name) in NUMBERS {
            for message in [
                format!("Unexpected error from cudaGetDeviceCount(). Error {number}: x"),
                format!("failed call to cuInit: UNKNOWN ERROR ({number})"),
                format!("CUDA runtime error, code={number}(x)"),
                format!("NCCL WARN Cuda failure {number} 'x'"),
            ] {
                assert!(names(&message.to_lowercase()).contains(name), "{message}");
                assert!(known(Part::Program, &message).is_some(), "{message}");
            }
        }
    }

    #[test]
    fn another_number_is_no_error_of_cuda() {
        for message in [
            "make: *** [cuda.o] error 2",
            "http error 804: x",
            "cuda error handling is enabled, code 46abc",
            "step 804 of cuda driver test",
        ] {
            assert_eq!(names(message), "", "{message}");
        }
    }
}
