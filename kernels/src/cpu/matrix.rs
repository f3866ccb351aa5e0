//! An int8 weight as this processor multiplies it with codes.

use tch::{TchError, Tensor};

#[cfg(target_arch = "x86_64")]
use super::code_strips::CodeStrip;
use super::dot::Weight;
use super::gemm::{self, Sink};
use super::isa::Isa;
use super::panel::Panel;
#[cfg(target_arch = "x86_64")]
use super::strips;
use super::view::elements;

/// Codes of output channels, brought into the order of the processor's unit once, where a code stays a byte there: a copy of what was
/// handed over, which may be a view of a file.
#[derive(Debug)]
pub(crate) struct Matrix {
    codes: Codes,
    /// N.
    out_features: usize,
    /// K.
    in_features: usize,
    isa: Isa,
}

#[derive(Debug)]
enum Codes {
    /// i8 [N, K], as they were handed over.
    Channels(Tensor),
    /// For AMX and VNNI.
    #[cfg(target_arch = "x86_64")]
    Strips(Vec<CodeStrip>),
}

impl Matrix {
    /// From codes i8 [N, K] on the CPU.
    ///
    /// # Errors
    ///
    /// Only libtorch's.
    pub(crate) fn new(codes: &Tensor, isa: Isa) -> Result<Self, TchError> {
        let (out_features, in_features) = codes.size2()?;
        let (out_features, in_features) = (out_features as usize, in_features as usize);
        let channels = codes.f_contiguous()?;
        #[cfg(target_arch = "x86_64")]
        if isa >= Isa::Avx512Vnni {
            let weight = Weight::new(elements(&channels), in_features);
            // SAFETY: `isa` says that the processor has the instructions.
            let strips = unsafe { CodeStrip::all_of(weight, out_features) };
            return Ok(Self { codes: Codes::Strips(strips), out_features, in_features, isa });
        }
        Ok(Self { codes: Codes::Channels(channels), out_features, in_features, isa })
    }

    /// N.
    pub(crate) fn out_features(&self) -> usize {
        self.out_features
    }

    /// K.
    pub(crate) fn in_features(&self) -> usize {
        self.in_features
    }

    /// The instructions that it is for.
    pub(crate) fn isa(&self) -> Isa {
        self.isa
    }

    /// Gives `sink` all sums of the codes of `rows` rows, in a panel for the same instructions.
    pub(crate) fn multiply(&self, panel: &Panel, rows: usize, sink: &impl Sink) {
        match &self.codes {
            Codes::Channels(codes) => {
                let weight = Weight::new(elements(codes), self.in_features);
                gemm::multiply(panel, rows, &weight, self.out_features, self.isa, sink);
            }
            #[cfg(target_arch = "x86_64")]
            Codes::Strips(kept) => {
                let alone = gemm::alone(rows, self.in_features);
                let (shape, kept) = ((self.out_features, alone), (kept.as_slice(), self.in_features));
                match panel {
                    // SAFETY: a panel is made only where the processor has the unit that it is for.
                    Panel::Fours(rows) => unsafe { strips::multiply_kept(rows, kept, shape, sink) },
                    // SAFETY: likewise.
                    Panel::Tiles(rows) => unsafe { strips::multiply_kept(rows, kept, shape, sink) },
                    Panel::Blocks(_) | Panel::Wide { .. } => unreachable!("units of strips have others"),
                }
            }
        }
    }

    /// The codes of some input channels: i8 [N, columns].
    ///
    /// # Errors
    ///
    /// Only libtorch's.
    pub(crate) fn columns(&self, columns: &[i64]) -> Result<Tensor, TchError> {
        match &self.codes {
            Codes::Channels(codes) => codes.f_index_select(1, &Tensor::from_slice(columns)),
            #[cfg(target_arch = "x86_64")]
            Codes::Strips(kept) => {
                let channels = (0..self.out_features).map(|channel| {
                    (&kept[channel / super::fours::CHANNELS], channel % super::fours::CHANNELS)
                });
                let codes: Vec<i8> = channels
                    .flat_map(|(strip, channel)| {
                        columns.iter().map(move |&column| strip.code(channel, column as usize))
                    })
                    .collect();
                Tensor::from_slice(&codes).f_view([self.out_features as i64, columns.len() as i64])
            }
        }
    }

    /// Bytes that it takes.
    pub(crate) fn bytes(&self) -> u64 {
        match &self.codes {
            Codes::Channels(codes) => codes.numel() as u64,
            #[cfg(target_arch = "x86_64")]
            Codes::Strips(kept) => kept.iter().map(CodeStrip::bytes).sum::<usize>() as u64,
        }
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;

    #[test]
    fn columns_are_those_of_the_weight_in_whatever_order_it_lies() {
        tch::manual_seed(5);
        for (out_features, in_features) in [(1, 1), (33, 70), (64, 128), (40, 200)] {
            let shape = [out_features, in_features];
            let codes = Tensor::randint_low(-128, 128, shape, (tch::Kind::Int8, tch::Device::Cpu));
            let columns = [in_features - 1, in_features / 2, 0];
            let expected = codes.index_select(1, &Tensor::from_slice(&columns));
            for isa in Isa::all_of_this_machine() {
                let matrix = Matrix::new(&codes, isa).unwrap();
                assert_eq!(matrix.columns(&columns).unwrap(), expected, "{isa:?} {shape:?}");
            }
        }
    }

    #[test]
    fn a_weight_takes_a_byte_a_code_and_a_sum_a_channel() {
        let codes = Tensor::zeros([64, 128], (tch::Kind::Int8, tch::Device::Cpu));
        for isa in Isa::all_of_this_machine() {
            let sums = if isa >= Isa::Avx512Vnni { 64 * 4 } else { 0 };
            assert_eq!(Matrix::new(&codes, isa).unwrap().bytes(), 64 * 128 + sums, "{isa:?}");
        }
    }
}
