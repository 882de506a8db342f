//! Helpers for the exported C functions: handles, return codes, out-parameters, buffers, and export macros.
//!
//! Out-parameters of a fixed type are `Option<&mut MaybeUninit<T>>`: the C ABI of a pointer that may be null, without
//! unsafe code. Raw pointers are only used if a length or a version determines how many bytes the caller owns; the few
//! functions that access them are in this file.

use std::ffi::{CStr, c_char, c_uint};
use std::mem::MaybeUninit;

use nvml_wrapper_sys::bindings::*;

use crate::facts::{Gpu, gpu_count};
use crate::session::{self, Session};

/// A value, or the return code with the reason why there is no value.
pub(crate) type Answer<T = ()> = Result<T, nvmlReturn_t>;

/// An out-parameter.
pub(crate) type Out<'a, T> = Option<&'a mut MaybeUninit<T>>;

pub(crate) const NOT_SUPPORTED: nvmlReturn_t = nvmlReturn_enum_NVML_ERROR_NOT_SUPPORTED;
pub(crate) const INVALID_ARGUMENT: nvmlReturn_t = nvmlReturn_enum_NVML_ERROR_INVALID_ARGUMENT;
pub(crate) const INSUFFICIENT_SIZE: nvmlReturn_t = nvmlReturn_enum_NVML_ERROR_INSUFFICIENT_SIZE;
pub(crate) const NOT_FOUND: nvmlReturn_t = nvmlReturn_enum_NVML_ERROR_NOT_FOUND;

/// Handles are numbers that are never dereferenced: this constant + GPU index × `HANDLE_STRIDE`, + 1 + index of the MIG
/// device.
const FIRST_HANDLE: usize = 0x10_0000;
const HANDLE_STRIDE: usize = 0x100;

/// Returns the handle of a GPU or of one of its MIG devices.
pub(crate) fn handle(gpu: u32, mig_index: Option<u32>) -> nvmlDevice_t {
    let offset = mig_index.map_or(0, |mig| mig as usize + 1);
    std::ptr::without_provenance_mut(FIRST_HANDLE + gpu as usize * HANDLE_STRIDE + offset)
}

/// Returns the GPU or MIG device of a handle. A number that is not a handle of this session is an `INVALID_ARGUMENT`.
pub(crate) fn resolve(session: &Session, device: nvmlDevice_t) -> Answer<Gpu<'_>> {
    let number = device.addr().checked_sub(FIRST_HANDLE).ok_or(INVALID_ARGUMENT)?;
    let (gpu, offset) = (number / HANDLE_STRIDE, number % HANDLE_STRIDE);
    let index = u32::try_from(gpu).ok().filter(|index| *index < gpu_count(&session.report)).ok_or(INVALID_ARGUMENT)?;
    let gpu = Gpu { report: &session.report, index, mig_index: offset.checked_sub(1).map(|mig| mig as u32) };
    if gpu.mig_index.is_some() && gpu.mig_device().is_none() { Err(INVALID_ARGUMENT) } else { Ok(gpu) }
}

/// Returns the NVML return code for the result of a call.
pub(crate) fn finish(answer: Answer) -> nvmlReturn_t {
    answer.err().unwrap_or(nvmlReturn_enum_NVML_SUCCESS)
}

/// Runs a call inside a session. `work` determines the device of the call and the faults that apply to the call.
pub(crate) fn in_session(work: impl FnOnce(&Session) -> Answer) -> nvmlReturn_t {
    finish(session::current().and_then(|session| work(&session)))
}

/// Runs a call that does not concern a single device.
pub(crate) fn on_system(function: &str, work: impl FnOnce(&Session) -> Answer) -> nvmlReturn_t {
    in_session(|session| {
        session.switches.dispatch(function, None)?;
        work(session)
    })
}

/// Runs a call that also works for MIG devices and for lost GPUs.
pub(crate) fn on_any(function: &str, device: nvmlDevice_t, work: impl FnOnce(&Gpu<'_>) -> Answer) -> nvmlReturn_t {
    in_session(|session| {
        let gpu = resolve(session, device)?;
        session.switches.dispatch(function, Some(gpu.index))?;
        work(&gpu)
    })
}

/// Runs a call that works for GPUs and MIG devices.
pub(crate) fn on_device(function: &str, device: nvmlDevice_t, work: impl FnOnce(&Gpu<'_>) -> Answer) -> nvmlReturn_t {
    on_any(function, device, |gpu| {
        gpu.answers()?;
        work(gpu)
    })
}

/// Runs a call that works for GPUs only.
pub(crate) fn on_gpu(function: &str, device: nvmlDevice_t, work: impl FnOnce(&Gpu<'_>) -> Answer) -> nvmlReturn_t {
    on_device(function, device, |gpu| if gpu.mig_index.is_some() { Err(NOT_SUPPORTED) } else { work(gpu) })
}

/// Looks up a fact. If the fact is absent, the call is not supported. The types of the closures are inferred from this
/// signature.
pub(crate) fn ask<'g, 'r, T>(gpu: &'g Gpu<'r>, fact: impl FnOnce(&'g Gpu<'r>) -> Option<T>) -> Answer<T> {
    fact(gpu).ok_or(NOT_SUPPORTED)
}

/// Like [`ask`], for a fact that the caller selects.
pub(crate) fn select<'g, 'r, S, T>(
    gpu: &'g Gpu<'r>,
    selector: S,
    fact: impl FnOnce(&'g Gpu<'r>, S) -> Answer<T>,
) -> Answer<T> {
    fact(gpu, selector)
}

/// Fills an out-parameter.
pub(crate) fn put<T>(out: Out<'_, T>, value: T) -> Answer {
    out.ok_or(INVALID_ARGUMENT)?.write(value);
    Ok(())
}

/// Fills a text buffer of `length` bytes, including the final NUL.
pub(crate) fn put_text(buffer: *mut c_char, length: c_uint, text: &str) -> Answer {
    if buffer.is_null() {
        return Err(INVALID_ARGUMENT);
    }
    if text.len() >= length as usize {
        return Err(INSUFFICIENT_SIZE);
    }
    // SAFETY: the caller owns `length` bytes at `buffer`, and the text with its NUL is not longer.
    unsafe {
        buffer.cast::<u8>().copy_from_nonoverlapping(text.as_ptr(), text.len());
        buffer.add(text.len()).write(0);
    }
    Ok(())
}

/// Reads a C string that the caller passes.
pub(crate) fn text_argument<'a>(text: *const c_char) -> Answer<&'a str> {
    if text.is_null() {
        return Err(INVALID_ARGUMENT);
    }
    // SAFETY: the pointer is not null, and the caller passes a NUL-terminated string that exists until the call
    // returns.
    unsafe { CStr::from_ptr(text) }.to_str().map_err(|_| INVALID_ARGUMENT)
}

/// Returns the array at `pointer`. The caller owns `length` elements there.
pub(crate) fn array<'a, T>(pointer: *mut T, length: usize) -> Answer<&'a mut [MaybeUninit<T>]> {
    if pointer.is_null() {
        return Err(INVALID_ARGUMENT);
    }
    // SAFETY: the pointer is not null, and the caller owns `length` elements at this address. They need not be
    // initialised.
    Ok(unsafe { std::slice::from_raw_parts_mut(pointer.cast(), length) })
}

/// Fills an array as NVML does. On input, `count` is the capacity of the array; on output, it is the number of
/// elements.
pub(crate) fn put_list<T>(count: Option<&mut c_uint>, pointer: *mut T, items: Vec<T>) -> Answer {
    let count = count.ok_or(INVALID_ARGUMENT)?;
    let room = std::mem::replace(count, items.len() as c_uint) as usize;
    if items.is_empty() {
        return Ok(());
    }
    if pointer.is_null() || room < items.len() {
        return if pointer.is_null() && room > 0 { Err(INVALID_ARGUMENT) } else { Err(INSUFFICIENT_SIZE) };
    }
    for (slot, item) in array(pointer, room)?.iter_mut().zip(items) {
        slot.write(item);
    }
    Ok(())
}

/// Returns a struct whose first field contains the version that the caller uses: `size | version << 24`.
pub(crate) fn versioned<'a, T: Copy>(pointer: *mut T, version: u32) -> Answer<&'a mut T> {
    if pointer.is_null() {
        return Err(INVALID_ARGUMENT);
    }
    // SAFETY: the pointer is not null. Each of these structs begins with this field in every version, and the caller
    // has set the field.
    let stated = unsafe { pointer.cast::<c_uint>().read() };
    if stated != size_of::<T>() as u32 | (version << 24) {
        return Err(nvmlReturn_enum_NVML_ERROR_ARGUMENT_VERSION_MISMATCH);
    }
    // SAFETY: the caller has stated that the pointer refers to a whole `T`. This type is plain data and valid with any
    // bytes.
    Ok(unsafe { &mut *pointer })
}

/// Exports `fn(device, text, length)` for each name. The closure returns the text; `None`: not supported.
macro_rules! gpu_texts {
    ($($name:ident => $fact:expr;)*) => { $(
        #[unsafe(no_mangle)]
        extern "C" fn $name(
            device: nvmlDevice_t,
            text: *mut std::ffi::c_char,
            length: std::ffi::c_uint,
        ) -> nvmlReturn_t {
            crate::ffi::on_device(stringify!($name), device, |gpu| {
                crate::ffi::put_text(text, length, crate::ffi::ask(gpu, $fact)?.as_ref())
            })
        }
    )* };
}

/// Exports `fn(device, out)` for each name. The closure returns the value; `None`: not supported.
macro_rules! gpu_values {
    ($($name:ident: $type:ty => $fact:expr;)*) => { $(
        #[unsafe(no_mangle)]
        extern "C" fn $name(device: nvmlDevice_t, out: crate::ffi::Out<'_, $type>) -> nvmlReturn_t {
            crate::ffi::on_gpu(stringify!($name), device, |gpu| {
                let value: $type = crate::ffi::ask(gpu, $fact)?;
                crate::ffi::put(out, value)
            })
        }
    )* };
}

/// Exports `fn(device, first, second)` with two numbers for each name. The closure returns both; `None`: not supported.
macro_rules! gpu_pairs {
    ($($name:ident => $fact:expr;)*) => { $(
        #[unsafe(no_mangle)]
        extern "C" fn $name(
            device: nvmlDevice_t,
            first: crate::ffi::Out<'_, std::ffi::c_uint>,
            second: crate::ffi::Out<'_, std::ffi::c_uint>,
        ) -> nvmlReturn_t {
            crate::ffi::on_gpu(stringify!($name), device, |gpu| {
                let (one, other): (u32, u32) = crate::ffi::ask(gpu, $fact)?;
                crate::ffi::put(first, one)?;
                crate::ffi::put(second, other)
            })
        }
    )* };
}

/// Exports `fn(device, selector, out)` for each name. The closure returns the selected value or the return code.
macro_rules! gpu_selected {
    ($($name:ident: $type:ty => $fact:expr;)*) => { $(
        #[unsafe(no_mangle)]
        extern "C" fn $name(
            device: nvmlDevice_t,
            selector: std::ffi::c_uint,
            out: crate::ffi::Out<'_, $type>,
        ) -> nvmlReturn_t {
            crate::ffi::on_gpu(stringify!($name), device, |gpu| {
                let value: $type = crate::ffi::select(gpu, selector, $fact)?;
                crate::ffi::put(out, value)
            })
        }
    )* };
}
