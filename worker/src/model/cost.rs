//! What a model costs by its shape: weights to multiply with, and memory that a token takes on its way.

use super::config::Config;

impl Config {
    /// Elements of the linear layers of one block: multiplications a token.
    pub fn block_weights(&self) -> u64 {
        let (queries, keys) = (self.heads * self.head_dim, self.kv_heads * self.head_dim);
        let attention = self.hidden_size * (2 * queries + 2 * keys);
        (attention + 3 * self.hidden_size * self.intermediate_size) as u64
    }

    /// Elements of the linear layers of all blocks.
    pub fn weights(&self) -> u64 {
        self.layers as u64 * self.block_weights()
    }

    /// Multiplications of the linear layers and the output projection where a text of so many `tokens` is read to be continued. Where it
    /// `leaves_out` what predicts nothing, the last block computes keys and values of all tokens, and everything else of the last one only.
    pub fn prompt_products(&self, tokens: u64, leaves_out: bool) -> u64 {
        let keys_and_values = (2 * self.hidden_size * self.kv_heads * self.head_dim) as u64;
        let left_out = if leaves_out { (tokens - 1) * (self.block_weights() - keys_and_values) } else { 0 };
        self.weights() * tokens - left_out + (self.hidden_size * self.vocab_size) as u64
    }

    /// Bytes of a token's keys and values in all blocks, in a type of `element` bytes.
    pub fn cache_bytes(&self, element: u64) -> u64 {
        2 * self.layers as u64 * (self.kv_heads * self.head_dim) as u64 * element
    }

    /// Bytes that a token takes on its way through a block, in a type of `element` bytes: hidden states and their norm,
    /// three projections before and after rotation, the attention's result; gate, up and their product; a float32 copy of
    /// the widest of them.
    pub fn working_bytes(&self, element: u64) -> u64 {
        let attended = self.heads * self.head_dim;
        let widest = self.hidden_size.max(attended).max(self.intermediate_size);
        let values = 4 * self.hidden_size + 6 * attended + 4 * self.intermediate_size;
        values as u64 * element + 4 * widest as u64
    }
}
