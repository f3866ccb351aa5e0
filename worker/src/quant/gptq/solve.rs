//! GPTQ of one weight (Frantar et al., 2022, arXiv 2210.17323): blocks of columns, each rounded by
//! [`qpipe_kernels::gptq`], whose errors the columns behind it then make good. Pure: a matrix in, codes out.

use qpipe_kernels::gptq::{Grid, ZeroPoint, round_block};
use tch::{Kind, TchError, Tensor};

use super::factor::Factor;
use super::running;

/// Columns of a block, in both references.
const BLOCK: i64 = 128;

/// Where scales and zero points come from.
#[derive(Debug)]
pub(in crate::quant) enum Scales {
    /// Computed beforehand; a column keeps those of its own group in whatever order it is rounded.
    Given {
        /// f32 [N, G].
        scale: Tensor,
        /// f32 [N, G].
        zero: Option<Tensor>,
    },
    /// Computed when the first column of a group is reached, from the weights as they are in front of its block:
    /// GPTQModel's. Groups are made of neighbours in the order of rounding.
    Running {
        /// `None`: one scale an output channel, from the original weights.
        group: Option<i64>,
        /// Whether zero points are half of the range.
        symmetric: bool,
    },
}

/// How weights are rounded.
#[derive(Debug)]
pub(in crate::quant) struct Rule {
    /// Bits of a code.
    pub(in crate::quant) bits: u32,
    /// Whether codes are from -2^(bits - 1) on, and not from 0.
    pub(in crate::quant) is_signed: bool,
    /// See [`ZeroPoint`].
    pub(in crate::quant) zero_point: ZeroPoint,
    /// The type that values are rounded to: that of the scales.
    pub(in crate::quant) kind: Kind,
    /// See [`Scales`].
    pub(in crate::quant) scales: Scales,
    /// Whether errors reach the columns behind a block through a batched product, as in llm-compressor: its bits are
    /// not always those of a plain one.
    pub(in crate::quant) is_batched: bool,
}

/// A rounded weight. Columns are as they stand in the weight.
#[derive(Debug)]
pub struct Solved {
    /// u8 [N, K], from 0.
    pub codes: Tensor,
    /// f32 [N, K]: what they stand for.
    pub values: Tensor,
    /// f32 [N, G].
    pub scale: Tensor,
    /// f32 [N, G], for codes from 0; `None`: half of 2^bits.
    pub zero: Option<Tensor>,
    /// i64 `[K]`: the group of each column, where groups are scattered.
    pub group_of: Option<Tensor>,
    /// Half of the sum of squared errors over the squared diagonal of U: half of tr((W - V) H (W - V)ᵀ) with the
    /// damped H.
    pub loss: f64,
}

/// Rounds `weight`, floating point [N, K].
pub(in crate::quant) fn solve(weight: &Tensor, factor: &Factor, rule: &Rule) -> Result<Solved, TchError> {
    let (rows, columns) = weight.size2()?;
    let group = group_size(&rule.scales, columns);
    let natural: Vec<i64> = match &factor.order {
        Some(order) => Vec::try_from(order)?,
        None => (0..columns).collect(),
    };
    let original = weight.f_to_dtype(Kind::Float, false, true)?;
    let mut scales = Reached::begin(&original, &rule.scales, rule.bits)?;
    if let Some(dead) = &factor.dead {
        let _ = original.shallow_clone().f_masked_fill_(dead, 0.0)?;
    }
    let work = match &factor.order {
        Some(order) => original.f_index_select(1, order)?,
        None => original,
    };

    let lowest = if rule.is_signed { -(1 << (rule.bits - 1)) } else { 0 };
    let (mut codes, mut values, mut loss) = (Vec::new(), Vec::new(), 0.0);
    for start in (0..columns).step_by(BLOCK as usize) {
        let count = BLOCK.min(columns - start);
        let behind = columns - start - count;
        scales.reach(&work, start, count)?;
        let group_of: Vec<usize> = (start..start + count)
            .map(|place| match rule.scales {
                Scales::Given { .. } => natural[place as usize] / group,
                Scales::Running { .. } => place / group,
            })
            .map(|group| group as usize)
            .collect();
        let (scale, zero) = scales.so_far()?;
        let grid = Grid {
            scale: &scale,
            zero: zero.as_ref(),
            zero_point: rule.zero_point,
            lowest,
            highest: lowest + (1 << rule.bits) - 1,
            kind: rule.kind,
        };
        let block = work.f_narrow(1, start, count)?;
        let factor_rows = factor.upper.f_narrow(0, start, count)?;
        let rounded = round_block(&block, &factor_rows.f_narrow(1, start, count)?, &grid, &group_of)?;
        loss += f64::try_from(rounded.errors.f_square()?.f_sum(Kind::Double)?)? / 2.0;
        if behind > 0 {
            let factor_behind = factor_rows.f_narrow(1, start + count, behind)?;
            let made_good = if rule.is_batched {
                rounded.errors.f_unsqueeze(0)?.f_bmm(&factor_behind.f_unsqueeze(0)?)?.f_squeeze_dim(0)?
            } else {
                rounded.errors.f_matmul(&factor_behind)?
            };
            let _ = work.f_narrow(1, start + count, behind)?.f_sub_(&made_good)?;
        }
        codes.push(rounded.codes);
        values.push(rounded.values);
    }
    let (codes, values) = (Tensor::f_cat(&codes, 1)?, Tensor::f_cat(&values, 1)?);
    let (scale, zero) = scales.so_far()?;
    let mut solved = Solved { codes, values, scale, zero, group_of: None, loss };
    if let Some(order) = &factor.order {
        solved.restore(order, &natural, &rule.scales, group)?;
    }
    if rule.is_signed
        && let Some(zero) = &mut solved.zero
    {
        let _ = zero.f_sub_scalar_(i64::from(lowest))?;
    }
    debug_assert_eq!(solved.codes.size(), [rows, columns]);
    Ok(solved)
}

fn group_size(scales: &Scales, columns: i64) -> i64 {
    match scales {
        Scales::Given { scale, .. } => columns / scale.size()[1],
        Scales::Running { group, .. } => group.unwrap_or(columns),
    }
}

impl Solved {
    /// Puts columns and groups back where they stood.
    fn restore(
        &mut self,
        order: &Tensor,
        natural: &[i64],
        scales: &Scales,
        group: i64,
    ) -> Result<(), TchError> {
        let places = order.f_argsort(0, false)?;
        self.codes = self.codes.f_index_select(1, &places)?;
        self.values = self.values.f_index_select(1, &places)?;
        if let Scales::Given { .. } = scales {
            return Ok(());
        }
        // Which group stood in each place, if groups stayed together.
        let moved: Option<Vec<i64>> = natural
            .chunks(group as usize)
            .map(|columns| {
                let first = columns[0] / group;
                columns.iter().all(|column| column / group == first).then_some(first)
            })
            .collect();
        match moved {
            Some(moved) => {
                let back = Tensor::f_from_slice(&moved)?.f_argsort(0, false)?.f_to_device(order.device())?;
                self.scale = self.scale.f_index_select(1, &back)?;
                self.zero = self.zero.as_ref().map(|zero| zero.f_index_select(1, &back)).transpose()?;
            }
            None => self.group_of = Some(places.f_divide_scalar_mode(group, "floor")?),
        }
        Ok(())
    }
}

/// The scales and zero points of the groups that were reached.
struct Reached<'a> {
    scales: &'a Scales,
    bits: u32,
    /// f32 [N, 1] each; of [`Scales::Given`] one of [N, G].
    scale: Vec<Tensor>,
    zero: Vec<Tensor>,
}

impl<'a> Reached<'a> {
    /// `original` is the weight with its dead channels, which count for the one scale of an output channel.
    fn begin(original: &Tensor, scales: &'a Scales, bits: u32) -> Result<Self, TchError> {
        let mut this = Self { scales, bits, scale: Vec::new(), zero: Vec::new() };
        match scales {
            Scales::Given { scale, zero } => {
                this.scale.push(scale.f_to_device(original.device())?);
                this.zero.extend(zero.as_ref().map(|zero| zero.f_to_device(original.device())).transpose()?);
            }
            Scales::Running { group: None, symmetric } => this.add(original, *symmetric)?,
            Scales::Running { .. } => {}
        }
        Ok(this)
    }

    /// Computes those of the groups that begin in the block at `start`, from `work` as it is in front of it.
    fn reach(&mut self, work: &Tensor, start: i64, count: i64) -> Result<(), TchError> {
        let Scales::Running { group: Some(group), symmetric } = *self.scales else { return Ok(()) };
        let columns = work.size2()?.1;
        let first = (start + group - 1) / group * group;
        for begin in (first..start + count).step_by(group as usize) {
            self.add(&work.f_narrow(1, begin, group.min(columns - begin))?, symmetric)?;
        }
        Ok(())
    }

    fn add(&mut self, weights: &Tensor, symmetric: bool) -> Result<(), TchError> {
        let (scale, zero) = running::parameters(weights, self.bits, symmetric)?;
        self.scale.push(scale);
        self.zero.push(zero);
        Ok(())
    }

    fn so_far(&self) -> Result<(Tensor, Option<Tensor>), TchError> {
        let zero = if self.zero.is_empty() { None } else { Some(Tensor::f_cat(&self.zero, 1)?) };
        Ok((Tensor::f_cat(&self.scale, 1)?, zero))
    }
}
