//! The unit of tiles, for tests on a processor that has none: its instructions are illegal there, and the handler of that signal does
//! what they would do (Intel's Architecture Instruction Set Extensions, 319433, chapter 3). Only the forms that `amx.rs` uses.

use std::cell::RefCell;
use std::ptr;
use std::sync::Once;

use libc::{c_int, c_void, siginfo_t, ucontext_t};

use super::super::fours::{TERMS, TILE};

type Tile = [[i8; TERMS]; TILE];

/// The registers of a thread: `None` before they are configured. All are whole tiles.
type Registers = Option<[Tile; 8]>;

thread_local! {
    static REGISTERS: RefCell<Registers> = const { RefCell::new(None) };
}

/// From here on this process has the unit.
pub(crate) fn install() {
    static INSTALLED: Once = Once::new();
    INSTALLED.call_once(|| {
        // SAFETY: the structure is filled as the call wants it; the handler touches this thread's registers and what an instruction names.
        unsafe {
            let mut action: libc::sigaction = std::mem::zeroed();
            action.sa_sigaction = handle as *const () as usize;
            action.sa_flags = libc::SA_SIGINFO | libc::SA_NODEFER;
            assert_eq!(libc::sigaction(libc::SIGILL, &raw const action, ptr::null_mut()), 0);
        }
    });
}

extern "C" fn handle(_: c_int, _: *mut siginfo_t, context: *mut c_void) {
    // SAFETY: Linux gives the context of the thread that was interrupted.
    let general = unsafe { &mut (*context.cast::<ucontext_t>()).uc_mcontext.gregs };
    let instruction = general[libc::REG_RIP as usize] as *const u8;
    // SAFETY: no instruction of the unit is shorter than five bytes, and what follows is code.
    let bytes = unsafe { ptr::read_unaligned(instruction.cast::<[u8; 10]>()) };
    let decoded = Decoded::new(&bytes, general);
    // A test ends with the process when it meets another instruction: a handler must not unwind.
    let Some(decoded) =
        decoded.filter(|decoded| REGISTERS.with_borrow_mut(|registers| decoded.run(registers)))
    else {
        std::process::abort()
    };
    general[libc::REG_RIP as usize] += decoded.length;
}

/// An instruction with a VEX prefix of three bytes in the map of 0F38.
struct Decoded {
    opcode: u8,
    /// The prefix that it implies: 0 for none, 1 to 3 for 66, F3 and F2.
    prefix: u8,
    /// The operands that are registers of tiles: of the middle of ModRM, of its end, and of VEX.
    tiles: [usize; 3],
    /// Where the operand in memory begins, and the distance of its rows.
    memory: Option<(*mut i8, isize)>,
    length: i64,
}

impl Decoded {
    fn new(bytes: &[u8; 10], general: &[i64]) -> Option<Self> {
        // As processors number registers.
        const GENERAL: [c_int; 16] = [
            libc::REG_RAX,
            libc::REG_RCX,
            libc::REG_RDX,
            libc::REG_RBX,
            libc::REG_RSP,
            libc::REG_RBP,
            libc::REG_RSI,
            libc::REG_RDI,
            libc::REG_R8,
            libc::REG_R9,
            libc::REG_R10,
            libc::REG_R11,
            libc::REG_R12,
            libc::REG_R13,
            libc::REG_R14,
            libc::REG_R15,
        ];
        let &[0xC4, map, rest, opcode, modrm, sib, ..] = bytes else { return None };
        if map & 31 != 2 {
            return None;
        }
        let above = |bit: u8| usize::from(map >> bit & 1 ^ 1) << 3;
        let register = |low: u8, high: usize| general[GENERAL[usize::from(low & 7) | high] as usize];
        let (kind, end) = (modrm >> 6, modrm & 7);
        let mut length = 5;
        let memory = match (kind, end) {
            (3, _) => None,
            // Without a base: not used here.
            (0, 5) => return None,
            _ => {
                let mut address = register(end, above(5));
                let mut distance = 0;
                if end == 4 {
                    if kind == 0 && sib & 7 == 5 {
                        return None;
                    }
                    address = register(sib, above(5));
                    // Register 4 stands for no index.
                    if usize::from(sib >> 3 & 7) | above(6) != 4 {
                        distance = register(sib >> 3, above(6)) << (sib >> 6);
                    }
                    length += 1;
                }
                let displacement = &bytes[length..];
                match kind {
                    1 => {
                        address += i64::from(displacement[0] as i8);
                        length += 1;
                    }
                    2 => {
                        address += i64::from(i32::from_le_bytes(*displacement.first_chunk()?));
                        length += 4;
                    }
                    _ => {}
                }
                Some((address as *mut i8, distance as isize))
            }
        };
        let tiles = [modrm >> 3 & 7, end, !(rest >> 3) & 15].map(usize::from);
        Some(Self { opcode, prefix: rest & 3, tiles, memory, length: length as i64 })
    }

    /// Whether the instruction is known, and could be run.
    fn run(&self, registers: &mut Registers) -> bool {
        let [middle, end, third] = self.tiles;
        match (self.opcode, self.prefix, self.memory, registers) {
            // ldtilecfg, of which all tiles are whole
            (0x49, 0, Some((from, _)), registers) => {
                // SAFETY: the instruction reads 64 bytes.
                let configuration = unsafe { ptr::read_unaligned(from.cast::<[u8; 64]>()) };
                *registers = Some([[[0; TERMS]; TILE]; 8]);
                configuration[0] == 1
                    && configuration[16..32] == [TERMS as u8, 0].repeat(8)
                    && configuration[48..56] == [TILE as u8; 8]
            }
            // tilerelease
            (0x49, 0, None, registers @ Some(_)) => {
                *registers = None;
                true
            }
            // tilezero
            (0x49, 3, None, Some(tiles)) => {
                tiles[middle] = [[0; TERMS]; TILE];
                true
            }
            // tileloadd and tilestored
            (0x4B, prefix @ (2 | 3), Some((start, distance)), Some(tiles)) => {
                for (row, line) in tiles[middle].iter_mut().enumerate() {
                    // SAFETY: the instruction reads or writes these bytes.
                    unsafe {
                        let at = start.offset(row as isize * distance).cast::<[i8; TERMS]>();
                        if prefix == 3 { *line = at.read_unaligned() } else { at.write_unaligned(*line) }
                    }
                }
                true
            }
            // tdpbssd, of three tiles
            (0x5E, 3, None, Some(tiles)) if middle != end && middle != third && end != third => {
                let (rows, channels) = (tiles[end], tiles[third]);
                for (sums, row) in tiles[middle].iter_mut().zip(&rows) {
                    for (sum, channel) in sums.as_chunks_mut::<4>().0.iter_mut().zip(0..) {
                        let fours = row.as_chunks::<4>().0.iter().zip(&channels);
                        let products = fours
                            .flat_map(|(codes, line)| codes.iter().zip(&line.as_chunks::<4>().0[channel]));
                        let products = products.map(|(&x, &weight)| i32::from(x) * i32::from(weight));
                        let before = i32::from_le_bytes(sum.map(|byte| byte as u8));
                        *sum = (before + products.sum::<i32>()).to_le_bytes().map(|byte| byte as i8);
                    }
                }
                true
            }
            _ => false,
        }
    }
}
