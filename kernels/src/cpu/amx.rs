//! Products of many rows with an int8 weight on AMX, the unit of tiles in newer processors of Intel's (Architecture Instruction
//! Set Extensions, 319433, chapter 3): `tdpbssd` multiplies 16 rows by 16 output channels over 64 input channels.
//!
//! Two tiles of rows times two of output channels are summed in four tile registers. Rows lie as they are, filled up to
//! whole tiles; output channels lie in fours of codes, one channel beside the other, as the unit wants its second factor.

#[cfg(all(test, target_os = "linux"))]
pub(crate) mod emulated;

use std::arch::asm;
use std::arch::x86_64::*;
use std::marker::PhantomData;
use std::ops::Range;
use std::sync::OnceLock;

use super::code_strips::CodeStrip;
use super::dot::Weight;
use super::fours::{self, CHANNELS, Line, TERMS, TILE, add_scaled};
use super::gemm::{GroupedSink, Sink};
use super::shared::Shared;
use super::strips::{Groups, InBlocks, each_tile};
use super::threads::in_parts;

/// Rows of a block at most.
const ROWS: usize = 2 * TILE;
/// Codes that one thread brings into lines without waking another.
const ALONE: usize = 1 << 18;

/// Whether the processor multiplies int8 in tiles, and Linux lets this process do it. Asks for it, once: a thread that has used
/// tiles has 8 KiB more to be kept while others run. `Isa` asks only where there is AVX-512, which packs what tiles multiply.
pub(crate) fn is_here() -> bool {
    static IS_HERE: OnceLock<bool> = OnceLock::new();
    *IS_HERE.get_or_init(|| has_unit() && is_permitted())
}

/// CPUID's leaf 7: AMX-TILE and AMX-INT8.
fn has_unit() -> bool {
    const NEEDED: u32 = 1 << 24 | 1 << 25;
    __cpuid(0).eax >= 7 && __cpuid_count(7, 0).edx & NEEDED == NEEDED
}

/// See Linux' Documentation/arch/x86/xstate.rst.
#[cfg(target_os = "linux")]
fn is_permitted() -> bool {
    const ARCH_REQ_XCOMP_PERM: libc::c_long = 0x1023;
    const XFEATURE_XTILEDATA: libc::c_long = 18;
    // SAFETY: the call takes two numbers and changes nothing but what this process may use.
    unsafe { libc::syscall(libc::SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA) == 0 }
}

#[cfg(not(target_os = "linux"))]
fn is_permitted() -> bool {
    false
}

/// The tile registers of this thread: eight of 16 rows of 64 bytes.
struct TileRegisters(PhantomData<*const ()>);

impl TileRegisters {
    /// # Safety
    ///
    /// [`super::isa::Isa::Amx`] is of this machine.
    unsafe fn configured() -> Self {
        #[repr(C, align(64))]
        struct Configuration {
            palette: u8,
            start_row: u8,
            reserved: [u8; 14],
            bytes_of_row: [u16; 16],
            rows: [u8; 16],
        }
        let mut configuration = Configuration {
            palette: 1,
            start_row: 0,
            reserved: [0; 14],
            bytes_of_row: [0; 16],
            rows: [0; 16],
        };
        configuration.bytes_of_row[..8].fill(TERMS as u16);
        configuration.rows[..8].fill(TILE as u8);
        // SAFETY: the processor has tiles, and 64 bytes are read.
        unsafe { asm!("ldtilecfg [{}]", in(reg) &raw const configuration, options(nostack, readonly)) };
        Self(PhantomData)
    }

    /// The sums over `count` lines of the rows from `rows` on, a tile or two of them with `stride` lines each, and of the strip
    /// that begins at `strip`.
    ///
    /// # Safety
    ///
    /// `rows` are so many tiles whose rows have `count` lines, `strip` has `count` lines for each of its channels.
    unsafe fn sums(
        &self,
        (rows, stride, tiles): (*const Line, usize, usize),
        strip: *const Line,
        count: usize,
        found: &mut Sums,
    ) {
        if count == 0 {
            *found = Sums::default();
            return;
        }
        let stride = stride * size_of::<Line>();
        // Wraps where there is no second tile of rows, which is then not read.
        let second = rows.cast::<u8>().wrapping_add(TILE * stride);
        // SAFETY: the caller promises what is read; a tile of sums and its neighbour fill rows of `found`.
        unsafe {
            if tiles == 1 {
                asm!(
                    "tilezero tmm0",
                    "tilezero tmm1",
                    "2:",
                    "tileloadd tmm4, [{x} + {stride}]",
                    "tileloadd tmm6, [{w} + {lines}]",
                    "tdpbssd tmm0, tmm4, tmm6",
                    "tileloadd tmm7, [{w} + {lines} + 64]",
                    "tdpbssd tmm1, tmm4, tmm7",
                    "add {x}, 64",
                    "add {w}, 2048",
                    "dec {count}",
                    "jnz 2b",
                    "tilestored [{found} + {width}], tmm0",
                    "tilestored [{found} + {width} + 64], tmm1",
                    x = inout(reg) rows => _,
                    w = inout(reg) strip => _,
                    count = inout(reg) count => _,
                    stride = in(reg) stride,
                    lines = in(reg) 2 * size_of::<Line>(),
                    found = in(reg) found,
                    width = in(reg) CHANNELS * size_of::<i32>(),
                    out("tmm0") _, out("tmm1") _, out("tmm4") _, out("tmm6") _, out("tmm7") _,
                    options(nostack),
                );
            } else {
                asm!(
                    "tilezero tmm0",
                    "tilezero tmm1",
                    "tilezero tmm2",
                    "tilezero tmm3",
                    "2:",
                    "tileloadd tmm4, [{x} + {stride}]",
                    "tileloadd tmm6, [{w} + {lines}]",
                    "tdpbssd tmm0, tmm4, tmm6",
                    "tileloadd tmm7, [{w} + {lines} + 64]",
                    "tdpbssd tmm1, tmm4, tmm7",
                    "tileloadd tmm5, [{second} + {stride}]",
                    "tdpbssd tmm2, tmm5, tmm6",
                    "tdpbssd tmm3, tmm5, tmm7",
                    "add {x}, 64",
                    "add {second}, 64",
                    "add {w}, 2048",
                    "dec {count}",
                    "jnz 2b",
                    "tilestored [{found} + {width}], tmm0",
                    "tilestored [{found} + {width} + 64], tmm1",
                    "tilestored [{found} + {width} + 2048], tmm2",
                    "tilestored [{found} + {width} + 2112], tmm3",
                    x = inout(reg) rows => _,
                    second = inout(reg) second => _,
                    w = inout(reg) strip => _,
                    count = inout(reg) count => _,
                    stride = in(reg) stride,
                    lines = in(reg) 2 * size_of::<Line>(),
                    found = in(reg) found,
                    width = in(reg) CHANNELS * size_of::<i32>(),
                    out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
                    out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
                    options(nostack),
                );
            }
        }
    }
}

impl Drop for TileRegisters {
    fn drop(&mut self) {
        // SAFETY: they were configured.
        unsafe { asm!("tilerelease", options(nostack, nomem)) };
    }
}

/// Sums of a block's rows and a strip's channels.
#[repr(C, align(64))]
struct Sums<T = i32>([[T; CHANNELS]; ROWS]);

impl<T: Copy + Default> Default for Sums<T> {
    fn default() -> Self {
        Self([[T::default(); CHANNELS]; ROWS])
    }
}

impl<T> AsRef<[[T; CHANNELS]]> for Sums<T> {
    fn as_ref(&self) -> &[[T; CHANNELS]] {
        &self.0
    }
}

/// Codes of many rows: each in whole lines, and whole tiles of them; what is missing is zero.
#[derive(Debug)]
pub(crate) struct Rows {
    lines: Vec<Line>,
    rows: usize,
    /// Lines of a row.
    stride: usize,
}

impl Rows {
    /// From codes i8 [M, K].
    pub(crate) fn new(codes: &[i8], in_features: usize) -> Self {
        let (rows, stride) = (codes.len() / in_features.max(1), in_features.div_ceil(TERMS));
        let mut lines = vec![Line::default(); rows.next_multiple_of(TILE) * stride];
        let shared = Shared::new(&mut lines);
        in_parts(rows, TILE, ALONE / in_features.max(1), |range| {
            for row in range {
                // SAFETY: each row is given to one thread.
                let lines = unsafe { shared.part(row * stride, stride) };
                for (line, codes) in
                    lines.iter_mut().zip(codes[row * in_features..][..in_features].chunks(TERMS))
                {
                    line.0[..codes.len()].copy_from_slice(codes);
                }
            }
        });
        Self { lines, rows, stride }
    }

    /// The blocks: the number of the first row, how many rows, and the tiles and the lines that they fill.
    fn blocks(&self) -> impl Iterator<Item = (usize, usize, (usize, &[Line]))> {
        (0..self.rows).step_by(ROWS).map(|first| {
            let rows = ROWS.min(self.rows - first);
            let tiles = rows.div_ceil(TILE);
            (first, rows, (tiles, &self.lines[first * self.stride..][..tiles * TILE * self.stride]))
        })
    }
}

impl InBlocks for Rows {
    const CHANNELS: usize = CHANNELS;

    type Strip = CodeStrip;

    fn strip_bytes(in_features: usize) -> usize {
        fours::strip_bytes(in_features)
    }

    unsafe fn fill(strip: &mut CodeStrip, weight: Weight<'_>, channels: Range<usize>, _: usize) {
        // SAFETY: where there is AMX, there is AVX-512: see `Isa`.
        unsafe { strip.fill(weight, channels) };
    }

    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
    unsafe fn multiply(&self, strips: &[CodeStrip], first: usize, out_features: usize, sink: &impl Sink) {
        // SAFETY: the caller has tiles.
        let registers = unsafe { TileRegisters::configured() };
        let sums_of = |&(tiles, lines): &(usize, &[Line]), (_, strip): (_, &CodeStrip), sums: &mut Sums| {
            let (block, strip) = ((lines.as_ptr(), self.stride, tiles), strip.lines().all());
            assert_eq!(strip.len(), self.stride * CHANNELS, "rows are as long as the strip");
            // SAFETY: rows have `stride` lines, see `blocks`, and so have the strip's channels.
            unsafe { registers.sums(block, strip.as_ptr(), self.stride, sums) };
        };
        each_tile(self.blocks(), strips, (first, out_features), sums_of, |row, first, sums| {
            sink.take(row, first, sums);
        });
    }

    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
    unsafe fn multiply_groups(
        &self,
        strips: &[CodeStrip],
        first: usize,
        (out_features, groups): (usize, Groups),
        sink: &impl GroupedSink,
    ) {
        assert!(fours::fits(groups.group), "groups are whole lines");
        // SAFETY: the caller has tiles.
        let registers = unsafe { TileRegisters::configured() };
        let width = groups.group / TERMS;
        let scales = groups.scales::<CHANNELS>(strips.len(), (first, out_features), sink);
        let mut sums = Sums::default();
        let scaled_sums = |&(tiles, lines): &(usize, &[Line]),
                           (index, strip): (usize, &CodeStrip),
                           scaled: &mut Sums<f32>| {
            *scaled = Sums::default();
            for (start, scales) in (0..self.stride).step_by(width).zip(&scales[index]) {
                let block = (lines[start..].as_ptr(), self.stride, tiles);
                let part = strip.lines().parts(start..start + width).as_ptr();
                // SAFETY: rows and strips have `width` lines from `start` on, which is a group.
                unsafe { registers.sums(block, part, width, &mut sums) };
                for (scaled, sums) in scaled.0.iter_mut().zip(&sums.0).take(tiles * TILE) {
                    add_scaled(scaled, sums, scales);
                }
            }
        };
        each_tile(self.blocks(), strips, (first, out_features), scaled_sums, |row, first, sums| {
            sink.take(row, first, sums);
        });
    }
}
