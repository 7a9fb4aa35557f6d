//! Sizes as they are written down: so that what is read back is the same to the byte.

use bytesize::ByteSize;
use serde::Serializer;

/// The units, the largest first.
const UNITS: [(u64, &str); 4] = [(1 << 40, "TiB"), (1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];

/// Writes a size in the largest unit of which it is a whole number.
pub(super) fn serialize<S: Serializer>(size: &ByteSize, to: S) -> Result<S::Ok, S::Error> {
    let bytes = size.as_u64();
    let fits = |unit: &&(u64, &str)| bytes > 0 && bytes.is_multiple_of(unit.0);
    let (unit, name) = UNITS.iter().find(fits).copied().unwrap_or((1, "B"));
    to.collect_str(&format_args!("{}{name}", bytes / unit))
}
