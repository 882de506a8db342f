//! `ListReader`: decodes a Kubernetes list in protobuf while it arrives (`ListError`: why it cannot be decoded). No
//! I/O. `MAGIC`: the first bytes of each response.
//!
//! Each object is passed on as soon as it is complete, so a list of any length needs memory for one object only.
//!
//! ```text
//!   "k8s\0"  runtime.Unknown { 1: TypeMeta, 2: list, … }
//!                              list { 1: ListMeta { 3: continue }, 2: object, 2: object, … }
//! ```

use std::marker::PhantomData;

use bytes::{Buf, BytesMut};
use prost::Message;
use prost::encoding::{WireType, decode_varint};

/// First bytes of each response.
pub const MAGIC: &[u8; 4] = b"k8s\0";
/// Maximum size of one object. etcd stores at most 1.5 MiB by default.
const MAX_OBJECT_BYTES: u64 = 16 << 20;
/// Maximum size of a `ListMeta`.
const MAX_METADATA_BYTES: u64 = 1 << 20;
/// Maximum size of a varint.
const MAX_VARINT_BYTES: usize = 10;
/// Maximum size of the header of a field: its key and its length, which are two varints.
const MAX_HEADER_BYTES: usize = 2 * MAX_VARINT_BYTES;
/// Field number of the list in the envelope, and of an object in the list.
const CONTENT: u32 = 2;

/// The reason why the bytes are not a valid list.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ListError {
    /// The response does not start with the prefix of Kubernetes protobuf.
    #[error("the response does not start with the prefix of Kubernetes protobuf")]
    Magic,
    /// The response ends before the list is complete.
    #[error("the list ended before it was complete")]
    Cut,
    /// An object or the metadata is larger than the limit.
    #[error("the list has an object of {0} bytes")]
    TooLarge(u64),
    /// The response is not valid protobuf.
    #[error("the list is not valid protobuf: {0}")]
    Invalid(String),
}

/// A reader for a list of `T`.
#[derive(Debug)]
pub struct ListReader<T> {
    buffer: BytesMut,
    /// Whether the first bytes were read.
    is_begun: bool,
    /// Number of bytes to skip, from a field that is not needed.
    skip: u64,
    /// Number of bytes of the list that were not read yet. `None` outside of the list.
    list: Option<u64>,
    /// Whether the whole list was read.
    is_complete: bool,
    next: Option<String>,
    object: PhantomData<T>,
}

/// `ListMeta`, with only the token for the next page.
#[derive(Clone, PartialEq, Eq, Message)]
struct ListMeta {
    #[prost(string, tag = "3")]
    next: String,
}

/// Key and length of a field.
struct Header {
    tag: u32,
    is_message: bool,
    /// Size of the key and the length, in bytes.
    bytes: usize,
    /// Size of the value, in bytes.
    length: u64,
}

impl<T: Message + Default> Default for ListReader<T> {
    fn default() -> Self {
        Self {
            buffer: BytesMut::new(),
            is_begun: false,
            skip: 0,
            list: None,
            is_complete: false,
            next: None,
            object: PhantomData,
        }
    }
}

impl<T: Message + Default> ListReader<T> {
    /// Reads the next bytes of the response, and passes each complete object to `take`.
    pub fn read(&mut self, bytes: &[u8], take: &mut impl FnMut(T)) -> Result<(), ListError> {
        self.buffer.extend_from_slice(bytes);
        while self.step(take)? {}
        Ok(())
    }

    /// Returns the token for the next page, after all bytes were read.
    pub fn finish(self) -> Result<Option<String>, ListError> {
        let is_between_fields = self.buffer.is_empty() && self.skip == 0 && self.list.is_none();
        if self.is_complete && is_between_fields { Ok(self.next) } else { Err(ListError::Cut) }
    }

    /// Reads one field or a part of it. Returns false if more bytes are needed.
    fn step(&mut self, take: &mut impl FnMut(T)) -> Result<bool, ListError> {
        if !self.is_begun {
            let Some(first) = self.buffer.get(..MAGIC.len()) else { return Ok(false) };
            if first != MAGIC {
                return Err(ListError::Magic);
            }
            self.buffer.advance(MAGIC.len());
            self.is_begun = true;
        }
        if self.skip > 0 {
            let now = usize::try_from(self.skip).unwrap_or(usize::MAX).min(self.buffer.len());
            self.buffer.advance(now);
            self.skip -= now as u64;
            return Ok(self.skip == 0);
        }
        if self.list == Some(0) {
            (self.list, self.is_complete) = (None, true);
        }
        let Some(header) = header(&self.buffer)? else { return Ok(false) };
        match self.list {
            None if header.tag == CONTENT && header.is_message => {
                self.buffer.advance(header.bytes);
                self.list = Some(header.length);
                Ok(true)
            }
            None => Ok(self.skip(&header)),
            Some(left) => self.field_of_list(&header, left, take),
        }
    }

    fn field_of_list(&mut self, header: &Header, left: u64, take: &mut impl FnMut(T)) -> Result<bool, ListError> {
        let size = header.length.saturating_add(header.bytes as u64);
        let rest =
            left.checked_sub(size).ok_or_else(|| ListError::Invalid("a field is longer than the list".into()))?;
        let most = match (header.tag, header.is_message) {
            (1, true) => MAX_METADATA_BYTES,
            (CONTENT, true) => MAX_OBJECT_BYTES,
            _ => {
                self.list = Some(rest);
                return Ok(self.skip(header));
            }
        };
        if header.length > most {
            return Err(ListError::TooLarge(header.length));
        }
        let end = header.bytes + usize::try_from(header.length).unwrap_or(usize::MAX);
        let Some(value) = self.buffer.get(header.bytes..end) else { return Ok(false) };
        if header.tag == CONTENT {
            take(T::decode(value).map_err(invalid)?);
        } else {
            self.next = Some(ListMeta::decode(value).map_err(invalid)?.next).filter(|token| !token.is_empty());
        }
        self.buffer.advance(end);
        self.list = Some(rest);
        Ok(true)
    }

    fn skip(&mut self, header: &Header) -> bool {
        self.buffer.advance(header.bytes);
        self.skip = header.length;
        true
    }
}

fn invalid(error: impl std::fmt::Display) -> ListError {
    ListError::Invalid(error.to_string())
}

/// Decodes the header of the field at the start of `bytes`. Returns `None` if more bytes are needed.
fn header(bytes: &[u8]) -> Result<Option<Header>, ListError> {
    let mut rest = bytes.get(..MAX_HEADER_BYTES).unwrap_or(bytes);
    let available = rest.len();
    let mut varint = || {
        // In an incomplete varint, every byte has its highest bit set.
        if rest.len() < MAX_VARINT_BYTES && rest.iter().all(|byte| *byte >= 0x80) {
            return Ok(None);
        }
        let value = decode_varint(&mut rest).map_err(invalid)?;
        Ok::<_, ListError>(Some((value, available - rest.len())))
    };
    let Some((key, key_bytes)) = varint()? else { return Ok(None) };
    let tag = u32::try_from(key).ok().map(|key| key >> 3).filter(|tag| *tag > 0);
    let tag = tag.ok_or_else(|| invalid("a field without a valid number"))?;
    let kind = WireType::try_from(key & 7).map_err(invalid)?;
    let field = |is_message, bytes, length| Ok(Some(Header { tag, is_message, bytes, length }));
    match kind {
        WireType::LengthDelimited => match varint()? {
            Some((length, bytes)) => field(true, bytes, length),
            None => Ok(None),
        },
        WireType::Varint => match varint()? {
            Some((_, bytes)) => field(false, bytes, 0),
            None => Ok(None),
        },
        WireType::SixtyFourBit => field(false, key_bytes, 8),
        WireType::ThirtyTwoBit => field(false, key_bytes, 4),
        WireType::StartGroup | WireType::EndGroup => Err(invalid("Kubernetes uses no groups")),
    }
}
