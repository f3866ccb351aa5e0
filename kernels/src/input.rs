//! What several layers are given, and what each kernel makes of it first: worked out once.

use std::cell::{OnceCell, RefCell};
use std::rc::Rc;

use tch::{Device, Kind, Tensor};

use crate::cpu::Isa;
#[cfg(target_arch = "x86_64")]
use crate::cpu::outer_wide;
use crate::cpu::rows::{Rows, Rule};
#[cfg(target_arch = "x86_64")]
use crate::cpu::view::elements;
use crate::int8::launches::CudaRows;
use crate::llm_int8;
use crate::norm::Norm;

/// Activations for layers that share them. What a norm makes of them, and their codes, are found when a layer first asks, and kept for
/// the next one.
#[derive(Debug)]
pub struct Input<'a> {
    x: &'a Tensor,
    norm: Option<Norm<'a>>,
    normal: OnceCell<Tensor>,
    rows: Kept<Rule, Rows>,
    #[cfg(target_arch = "x86_64")]
    wide_rows: OnceCell<outer_wide::Rows<f32>>,
    /// By threshold.
    llm_int8_rows: Kept<f64, llm_int8::CpuRows>,
    cuda_rows: Kept<Rule, CudaRows>,
    /// By threshold.
    cuda_llm_int8_rows: Kept<f32, llm_int8::CudaRows>,
}

impl<'a> Input<'a> {
    /// `x` [..., K] as it is.
    pub fn new(x: &'a Tensor) -> Self {
        Self {
            x,
            norm: None,
            normal: OnceCell::new(),
            rows: Kept::default(),
            #[cfg(target_arch = "x86_64")]
            wide_rows: OnceCell::new(),
            llm_int8_rows: Kept::default(),
            cuda_rows: Kept::default(),
            cuda_llm_int8_rows: Kept::default(),
        }
    }

    /// What `norm` makes of `x` [..., K].
    ///
    /// # Panics
    ///
    /// If the norm has another width, type or place.
    pub fn normalized(x: &'a Tensor, norm: Norm<'a>) -> Self {
        let of = |tensor: &Tensor, size: Option<&i64>| (size.copied(), tensor.kind(), tensor.device());
        assert_eq!(
            of(norm.weight, Some(&(norm.weight.numel() as i64))),
            of(x, x.size().last()),
            "a norm has the width, type and place of what it normalizes"
        );
        Self { norm: Some(norm), ..Self::new(x) }
    }

    /// It, [..., K].
    pub fn tensor(&self) -> &Tensor {
        match &self.norm {
            Some(norm) => self.normal.get_or_init(|| norm.forward(self.x)),
            None => self.x,
        }
    }

    /// Its shape.
    pub fn size(&self) -> Vec<i64> {
        self.x.size()
    }

    /// The shape [..., N] of what a layer [N, K] makes of it.
    pub(crate) fn output_size(&self, (out_features, in_features): (i64, i64)) -> Vec<i64> {
        let mut size = self.size();
        let width = size.last_mut().expect("activations have a last dimension");
        assert_eq!(*width, in_features, "activations have another width than the layer");
        *width = out_features;
        size
    }

    /// Where it is.
    pub fn device(&self) -> Device {
        self.x.device()
    }

    /// Its type.
    pub fn kind(&self) -> Kind {
        self.x.kind()
    }

    /// What is still to be normalized, and how; `None` where that was done.
    pub(crate) fn unnormalized(&self) -> Option<(&Tensor, &Norm<'a>)> {
        let norm = self.norm.as_ref()?;
        self.normal.get().is_none().then_some((self.x, norm))
    }

    /// Its codes on a CPU. Rows are normalized where they are quantized for the first rule; another one wants them whole.
    pub(crate) fn rows(&self, rule: Rule, isa: Isa) -> Rc<Rows> {
        debug_assert_eq!(self.x.device(), Device::Cpu);
        self.rows.get(rule, || {
            let is_first = self.rows.is_empty();
            match self.unnormalized().filter(|(x, norm)| is_first && norm.is_in_rows(x)) {
                Some((x, norm)) => Rows::quantize(&x.contiguous(), Some(norm), rule, isa),
                None => Rows::quantize(&self.tensor().contiguous(), None, rule, isa),
            }
        })
    }

    /// It in float32 on a CPU, as products of AVX-512 read it.
    ///
    /// # Safety
    ///
    /// The processor has the unit.
    #[cfg(target_arch = "x86_64")]
    pub(crate) unsafe fn wide_rows(&self) -> &outer_wide::Rows<f32> {
        self.wide_rows.get_or_init(|| {
            let x = self.tensor().contiguous();
            let in_features = x.size().last().map_or(0, |&width| width as usize);
            // SAFETY: the caller promises it.
            unsafe { outer_wide::Rows::new(elements(&x), in_features) }
        })
    }

    /// Its codes for LLM.int8() on a CPU.
    pub(crate) fn llm_int8_rows(&self, threshold: f64, isa: Isa) -> Rc<llm_int8::CpuRows> {
        self.llm_int8_rows
            .get(threshold, || llm_int8::CpuRows::quantize(&self.tensor().contiguous(), threshold, isa))
    }

    /// Its codes on CUDA, for which `make` is asked where there are none yet.
    pub(crate) fn cuda_rows(&self, rule: Rule, make: impl FnOnce() -> CudaRows) -> Rc<CudaRows> {
        self.cuda_rows.get(rule, make)
    }

    /// Its codes for LLM.int8() on CUDA, for which `make` is asked where there are none yet.
    pub(crate) fn cuda_llm_int8_rows(
        &self,
        threshold: f32,
        make: impl FnOnce() -> llm_int8::CudaRows,
    ) -> Rc<llm_int8::CudaRows> {
        self.cuda_llm_int8_rows.get(threshold, make)
    }
}

/// Values by what they depend on. There are one or two.
#[derive(Debug)]
pub(crate) struct Kept<K, V>(RefCell<Vec<(K, Rc<V>)>>);

impl<K, V> Default for Kept<K, V> {
    fn default() -> Self {
        Self(RefCell::default())
    }
}

impl<K: PartialEq, V> Kept<K, V> {
    fn is_empty(&self) -> bool {
        self.0.borrow().is_empty()
    }

    /// That of `key`, made if it is not there.
    pub(crate) fn get(&self, key: K, make: impl FnOnce() -> V) -> Rc<V> {
        let found =
            self.0.borrow().iter().find(|(other, _)| *other == key).map(|(_, value)| Rc::clone(value));
        found.unwrap_or_else(|| {
            let value = Rc::new(make());
            self.0.borrow_mut().push((key, Rc::clone(&value)));
            value
        })
    }
}
