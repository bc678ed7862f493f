//! One layer of a decoder: norms, attention and feed-forward block, wired as the spec says.
//! Knows the residual stream and its blocks; keeps no state between steps.

use candle_core::{Result, Tensor};

use super::ModelError;
use super::attention::AttentionBlock;
use super::mlp::FeedForward;
use super::spec::{DecoderSpec, PerLayerSpec};
use super::tensors::{self, PER_LAYER_NORM};
use super::weights::Loader;
use crate::ops::Workspace;
use crate::ops::activation::ActivationRows;
use crate::ops::embedding::Embedding;
use crate::ops::linear::Linear;
use crate::ops::norm::{self, Norm, StreamRows};
use crate::ops::paged::{KvLayer, PagedBatch};
use crate::ops::rotary::RotaryTable;
use crate::ops::{Compute, Runs};

/// The residual stream [T, hidden], and what the last block gave but nobody has added yet: the next norm does both at once.
pub struct Stream {
    rows: StreamRows,
    delta: Option<Tensor>,
}

impl Stream {
    /// A stream that begins with the embeddings.
    pub fn new(rows: StreamRows) -> Self {
        Self { rows, delta: None }
    }

    /// The stream's normalised rows, or the rows themselves where there is no norm.
    ///
    /// # Errors
    /// If shapes do not fit.
    pub fn normed(self, norm: Option<&Norm>) -> Result<(Self, Tensor)> {
        let Self { mut rows, delta } = self;
        let x = match (norm, delta) {
            (Some(norm), delta) => {
                let (sum, x) = norm.add_forward(rows, delta.as_ref())?;
                rows = sum;
                x
            }
            (None, Some(delta)) => {
                rows = rows.plus(&delta)?;
                rows.residual().clone()
            }
            (None, None) => rows.residual().clone(),
        };
        Ok((Self { rows, delta: None }, x))
    }

    /// The stream on another device, in its workspace.
    ///
    /// # Errors
    /// If the device has no room.
    pub fn brought(self, ws: &mut Workspace, compute: &Compute) -> Result<Self> {
        let (_, rows) = self.normed(None)?;
        Ok(Self::new(StreamRows::brought(ws, compute, &rows)?))
    }

    /// The stream with a block's output still to be added.
    fn plus(self, delta: Tensor) -> Self {
        Self { delta: Some(delta), ..self }
    }
}

/// One layer.
pub struct Layer {
    before_attention: Option<Norm>,
    attention: AttentionBlock,
    after_attention: Option<Norm>,
    before_mlp: Option<Norm>,
    feed_forward: FeedForward,
    after_mlp: Option<Norm>,
    parallel: bool,
    /// Factor on what each block adds.
    scale: f64,
    per_layer: Option<PerLayerInput>,
    /// Factor on the whole stream.
    scalar: Option<f64>,
    /// Index of the cache it reads, and writes if it is its own.
    cache: usize,
    runs: Runs,
}

impl Layer {
    /// Whether every step of as many rows is the same work, see [`super::Decoder::is_steady`].
    pub fn is_steady(&self) -> bool {
        self.feed_forward.is_steady()
    }

    /// Loads layer `index`, whose positions turn by `table` and whose keys lie in cache `cache`.
    ///
    /// # Errors
    /// [`ModelError`] naming the tensor.
    pub fn new(
        loader: &mut Loader<'_>,
        spec: &DecoderSpec,
        table: RotaryTable,
        index: usize,
        cache: usize,
    ) -> std::result::Result<Self, ModelError> {
        let (wiring, runs) = (spec.wiring, loader.compute().runs());
        let mut norm = |name: Option<&str>| match name {
            None => Ok(None),
            Some(name) => loader.norm(&spec.norm, &format!("model.layers.{index}.{name}"), spec.hidden_size).map(Some),
        };
        let (before_attention, after_attention) = (norm(wiring.before_attention)?, norm(wiring.after_attention)?);
        let (before_mlp, after_mlp) = (norm(wiring.before_mlp)?, norm(wiring.after_mlp)?);
        let per_layer = match spec.per_layer {
            Some(per_layer) => Some(PerLayerInput::new(loader, spec, per_layer, index)?),
            None => None,
        };
        let scalar = match spec.layer_scalar {
            true => loader.vector(&tensors::layer_scalar(index))?.first().copied().map(f64::from),
            false => None,
        };
        Ok(Self {
            before_attention,
            attention: AttentionBlock::new(loader, spec, table, index)?,
            after_attention,
            before_mlp,
            feed_forward: FeedForward::new(loader, spec, index)?,
            after_mlp,
            parallel: wiring.parallel,
            scale: spec.scales.residual,
            per_layer,
            scalar,
            cache,
            runs,
        })
    }

    /// The stream behind this layer; this step's keys and values go to its cache. `input` is the layer's own [T, width], if the
    /// model has such.
    ///
    /// # Errors
    /// If a tensor operation fails.
    pub fn forward(
        &self,
        ws: &mut Workspace,
        stream: Stream,
        caches: &[KvLayer],
        batch: &PagedBatch,
        input: Option<Tensor>,
    ) -> Result<Stream> {
        let (stream, x) = stream.normed(self.before_attention.as_ref())?;
        let attention = self.attention.forward(ws, &x, &caches[self.cache], batch)?;
        let attention = self.finish(self.after_attention.as_ref(), attention)?;
        if self.parallel {
            let mlp = self.feed_forward.forward(ws, &x, stream.rows.residual())?;
            let mlp = self.finish(self.after_mlp.as_ref(), mlp)?;
            return Ok(stream.plus(norm::add(&self.runs, attention, &mlp)?));
        }
        let (mut stream, x) = stream.plus(attention).normed(self.before_mlp.as_ref())?;
        let mlp = self.feed_forward.forward(ws, &x, stream.rows.residual())?;
        stream = stream.plus(self.finish(self.after_mlp.as_ref(), mlp)?);
        if let (Some(per_layer), Some(input)) = (&self.per_layer, input) {
            let (before, x) = stream.normed(None)?;
            stream = before.plus(per_layer.forward(&x, &input)?);
        }
        if let Some(scalar) = self.scalar {
            let (before, _) = stream.normed(None)?;
            stream = Stream { rows: before.rows.scale(scalar)?, ..before };
        }
        Ok(stream)
    }

    /// A block's output as it is added to the stream.
    fn finish(&self, norm: Option<&Norm>, output: Tensor) -> Result<Tensor> {
        let output = match norm {
            Some(norm) => norm.forward_in_place(output)?,
            None => output,
        };
        if self.scale == 1.0 { Ok(output) } else { norm::scale(&self.runs, output, self.scale) }
    }
}

/// What a layer makes of its own input.
struct PerLayerInput {
    gate: Linear,
    activation: ActivationRows,
    projection: Linear,
    norm: Norm,
}

impl PerLayerInput {
    fn new(
        loader: &mut Loader<'_>,
        spec: &DecoderSpec,
        per_layer: PerLayerSpec,
        index: usize,
    ) -> std::result::Result<Self, ModelError> {
        let (gate, projection) = tensors::per_layer_input(spec, per_layer.width, index);
        let name = format!("model.layers.{index}.{PER_LAYER_NORM}");
        Ok(Self {
            gate: loader.linear(&gate)?,
            activation: ActivationRows::gated(loader.compute(), spec.mlp.activation),
            projection: loader.linear(&projection)?,
            norm: loader.norm(&spec.norm, &name, spec.hidden_size)?,
        })
    }

    fn forward(&self, x: &Tensor, input: &Tensor) -> Result<Tensor> {
        let gated = Tensor::cat(&[&self.gate.forward(x)?, input], 1)?;
        self.norm.forward(&self.projection.forward(&self.activation.forward(&gated)?)?)
    }
}

/// The inputs of all layers: a table's row per token, mixed with a projection of its embedding (Gemma 3n, 4).
pub struct PerLayerInputs {
    table: Embedding,
    projection: Linear,
    norm: Norm,
    width: usize,
    num_layers: usize,
}

impl PerLayerInputs {
    /// Loads table and projection.
    ///
    /// # Errors
    /// [`ModelError`] naming the tensor.
    pub fn new(
        loader: &mut Loader<'_>,
        spec: &DecoderSpec,
        per_layer: PerLayerSpec,
    ) -> std::result::Result<Self, ModelError> {
        Ok(Self {
            table: loader.embedding(&tensors::per_layer_table(spec, per_layer.width, per_layer.vocab_size))?,
            projection: loader.linear(&tensors::per_layer_projection(spec, per_layer.width))?,
            norm: loader.norm(&spec.norm, "model.per_layer_projection_norm", per_layer.width)?,
            width: per_layer.width,
            num_layers: spec.num_layers(),
        })
    }

    /// Each layer's input [T, width] for the tokens `ids` with embeddings [T, hidden]: (norm(projection * hidden^-1/2) + row *
    /// width^1/2) * 2^-1/2.
    ///
    /// # Errors
    /// If an id is outside the table.
    pub fn forward(&self, compute: &Compute, ids: &[u32], embeddings: &Tensor) -> Result<Vec<Tensor>> {
        let (tokens, hidden) = embeddings.dims2()?;
        let rows = (self.table.forward(compute, ids)? * (self.width as f64).sqrt())?;
        let projected = (self.projection.forward(embeddings)? * (hidden as f64).sqrt().recip())?;
        let projected = self.norm.forward(&projected.reshape((tokens * self.num_layers, self.width))?)?;
        let mixed = ((projected.reshape((tokens, self.num_layers * self.width))? + rows)? * 0.5f64.sqrt())?;
        let input = |layer: usize| mixed.narrow(1, layer * self.width, self.width)?.contiguous();
        (0..self.num_layers).map(input).collect()
    }
}
