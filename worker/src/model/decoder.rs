//! The one decoder: embedding, blocks of attention and feed-forward network, norm, output projection.

use qpipe_kernels::Multiplier;
use tch::{Device, Kind, Tensor};

use super::block::Block;
use super::checkpoint::Checkpoint;
use super::config::Config;
use super::embedding::Embedding;
use super::error::ModelError;
use super::formats;
use super::frame::Pass;
use super::kv_cache::Past;
use super::linear::{Linear, LinearSpec, LoadOptions, tensor_bytes};
use super::norm::RmsNorm;
use super::patterns::{Attention, Setting};
use super::rope::RotaryEmbedding;

/// The embedding, as formats name a layer.
pub const EMBEDDING_LAYER: &str = "model.embed_tokens";
/// The embedding's tensor, [vocabulary, hidden].
pub const EMBEDDING: &str = "model.embed_tokens.weight";
/// The final norm's tensor, `[hidden]`.
pub const FINAL_NORM: &str = "model.norm.weight";
/// The output projection's layer, absent where it is tied to the embedding.
pub const HEAD: &str = "lm_head";

/// The name of block number `layer`.
pub fn block_name(layer: usize) -> String {
    format!("model.layers.{layer}")
}

/// A language model, ready to run.
#[derive(Debug)]
pub struct Decoder {
    config: Config,
    kind: Kind,
    device: Device,
    attention: Multiplier,
    embedding: Embedding,
    blocks: Vec<Block>,
    norm: RmsNorm,
    /// `None`: the embedding serves.
    head: Option<Box<dyn Linear>>,
    rotary: RotaryEmbedding,
}

// SAFETY: a shared decoder is only read. Passes through it make new tensors, its layers have no state that `forward` changes
// (see `Linear`), and libtorch counts references to a tensor atomically.
unsafe impl Sync for Decoder {}

impl Decoder {
    /// Loads all weights of `checkpoint`.
    pub fn load(checkpoint: &Checkpoint, options: &LoadOptions) -> Result<Self, ModelError> {
        let config = checkpoint.config.clone();
        let embedding = Embedding::load(checkpoint, options)?;
        let mut blocks = Vec::with_capacity(config.layers);
        for layer in 0..config.layers {
            blocks.push(Block::load(checkpoint, layer, options)?);
        }
        let head = if config.tie_word_embeddings {
            None
        } else {
            let spec = LinearSpec {
                name: HEAD,
                in_features: config.hidden_size,
                out_features: config.vocab_size,
                bias: false,
            };
            Some(formats::load_linear(checkpoint, &spec, options)?)
        };
        Ok(Self {
            kind: options.kind(checkpoint)?,
            device: options.device,
            attention: options.attention(),
            embedding,
            blocks,
            norm: RmsNorm::load(checkpoint, "model.norm", config.hidden_size, options)?,
            head,
            rotary: RotaryEmbedding::new(&config.rope, config.head_dim, options.device),
            config,
        })
    }

    /// Hidden states after the final norm, [B, T, hidden].
    ///
    /// `ids` and `positions` are i64 [B, T] on the model's device. The tokens of a past come before
    /// `ids`, and a cache takes `ids` in; without one, gradients flow.
    pub fn hidden(
        &self,
        ids: &Tensor,
        positions: &Tensor,
        attention: &Attention,
        past: Option<&mut dyn Past>,
    ) -> Tensor {
        self.pass(ids, positions, attention, past, None)
    }

    /// The same of the tokens at `places` in their rows alone, i64 [B, W], each below T: [B, W, hidden]. The last block computes no more of
    /// the others than their keys and values, unless what a token becomes depends on them ([`Decoder::mixes_tokens`]).
    ///
    /// # Panics
    ///
    /// With [`Attention::Next`].
    pub fn hidden_at(
        &self,
        places: &Tensor,
        ids: &Tensor,
        positions: &Tensor,
        attention: &Attention,
        past: Option<&mut dyn Past>,
    ) -> Tensor {
        if self.mixes_tokens() {
            // What is wanted depends on the others in every layer.
            let hidden = self.pass(ids, positions, attention, past, None);
            let index = places.unsqueeze(2).expand([-1, -1, hidden.size()[2]], false);
            return hidden.gather(1, &index, false);
        }
        self.pass(ids, positions, attention, past, Some(places))
    }

    fn pass(
        &self,
        ids: &Tensor,
        positions: &Tensor,
        attention: &Attention,
        mut past: Option<&mut dyn Past>,
        places: Option<&Tensor>,
    ) -> Tensor {
        let all_positions = match &mut past {
            Some(past) => past.append_positions(positions),
            None => positions.shallow_clone(),
        };
        let shared = past.as_ref().map_or(0, |past| past.shared_tokens());
        let setting = Setting { config: &self.config, kind: self.kind, attention: self.attention };
        let pass = Pass {
            attention,
            queries: positions,
            keys: &all_positions,
            shared,
            setting,
            rotary: &self.rotary,
        };
        let frame = pass.frame();
        let wanted = places.map(|places| pass.wanted(places));
        let mut x = self.embedding.look_up(ids).expect("ids are below the vocabulary's size");
        for (layer, block) in self.blocks.iter().enumerate() {
            let past = past.as_mut().map(|past| &mut **past as &mut dyn Past);
            x = match &wanted {
                Some(wanted) if layer + 1 == self.blocks.len() => {
                    block.forward_wanted(&x, &frame, past, wanted)
                }
                _ => block.forward(x, &frame, past, None),
            };
        }
        self.norm.forward(&x)
    }

    /// Scores of the next token, [..., vocabulary], of hidden states [..., hidden], in the model's type.
    pub fn logits(&self, hidden: &Tensor) -> Tensor {
        match &self.head {
            Some(head) => head.forward(hidden),
            None => self.embedding.project(hidden),
        }
    }

    /// config.json.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The floating-point type of hidden states and logits.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// Where the weights are, and where ids and positions must be.
    pub fn device(&self) -> Device {
        self.device
    }

    /// The type whose products the layers of its blocks are multiplied by.
    pub fn multiplied_in(&self) -> Kind {
        let linears = self.blocks.first().map(Block::linears);
        linears.and_then(|linears| Some(linears.first()?.1.multiplied_in())).unwrap_or(self.kind())
    }

    /// Multiplications of linear layers where a text of so many `tokens` is read to be continued.
    pub fn prompt_products(&self, tokens: u64) -> u64 {
        self.config.prompt_products(tokens, !self.mixes_tokens())
    }

    /// Bytes of all weights; a tied embedding counts once.
    pub fn weight_bytes(&self) -> u64 {
        let mut bytes = self.embedding.bytes() + tensor_bytes(&self.norm.weight);
        for block in &self.blocks {
            bytes += block.bytes();
        }
        bytes + self.head.as_ref().map_or(0, |head| head.bytes())
    }

    /// Bytes of the weights that a token goes through: of an embedding that is no output projection only a row is read.
    pub fn step_bytes(&self) -> u64 {
        match &self.head {
            Some(_) => self.weight_bytes() - self.embedding.bytes(),
            None => self.weight_bytes(),
        }
    }

    /// How the blocks' linear layers are stored and multiplied: `dense`, `W8A8`, or several joined by ` + `.
    pub fn scheme_name(&self) -> String {
        let mut schemes: Vec<String> =
            self.blocks.iter().flat_map(Block::linears).map(|(_, linear)| linear.scheme()).collect();
        schemes.sort();
        schemes.dedup();
        schemes.join(" + ")
    }

    /// Whether what a token becomes depends on tokens that it does not attend to: LLM.int8() decides for all that are
    /// multiplied together which input channels hold outliers.
    pub fn mixes_tokens(&self) -> bool {
        let mut linears = self.blocks.iter().flat_map(Block::linears);
        linears.any(|(_, linear)| linear.mixes_tokens())
    }

    /// Every linear layer with its full name, blocks in order, an untied `lm_head` last.
    pub fn for_each_linear(&mut self, visit: &mut dyn FnMut(&str, &mut Box<dyn Linear>)) {
        for (layer, block) in self.blocks.iter_mut().enumerate() {
            for (part, linear) in block.linears_mut() {
                visit(&format!("{}.{part}", block_name(layer)), linear);
            }
        }
        if let Some(head) = &mut self.head {
            visit(HEAD, head);
        }
    }

    /// The floating-point tensors by their names in a checkpoint: the very ones that a forward pass uses, so
    /// that an optimizer's changes take effect and gradients arrive. Layers that are not
    /// [`Linear::dense`] are left out.
    pub fn named_parameters(&self) -> Vec<(String, Tensor)> {
        let mut parameters = Vec::new();
        if let Some(embedding) = self.embedding.dense() {
            parameters.push((EMBEDDING.to_owned(), embedding.shallow_clone()));
        }
        let push_linear = |parameters: &mut Vec<(String, Tensor)>, name: &str, linear: &dyn Linear| {
            let Some(dense) = linear.dense() else { return };
            parameters.push((format!("{name}.weight"), dense.weight.shallow_clone()));
            if let Some(bias) = &dense.bias {
                parameters.push((format!("{name}.bias"), bias.shallow_clone()));
            }
        };
        for (layer, block) in self.blocks.iter().enumerate() {
            let name = block_name(layer);
            for (part, norm) in block.norms() {
                parameters.push((format!("{name}.{part}.weight"), norm.weight.shallow_clone()));
            }
            for (part, linear) in block.linears() {
                push_linear(&mut parameters, &format!("{name}.{part}"), linear);
            }
        }
        parameters.push((FINAL_NORM.to_owned(), self.norm.weight.shallow_clone()));
        if let Some(head) = &self.head {
            push_linear(&mut parameters, HEAD, head.as_ref());
        }
        parameters
    }
}
