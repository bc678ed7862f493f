//! Flags of every command that runs a model, resolved into device, number formats, batch and cache.
//! Knows flags and their meaning; opens no model.

use std::collections::BTreeSet;

use candle_core::DType;
use candle_core::quantized::GgmlDType;
use clap::{Args, ValueEnum};

use super::arguments::{parse_bytes, positive};
use super::exit::UsageError;
use crate::engine::{EngineOptions, KvBudget};
use crate::generate::TextModelOptions;
use crate::model::WeightsKind;
use crate::ops::paged::KvFormat;
use crate::ops::{BlockInputs, Compute, DenseProducts, DeviceChoice};
use crate::plan::Formats;
use crate::prompt::TemplateOptions;

/// Where weights come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum WeightsArg {
    /// The directory's safetensors
    Files,
    /// Random numbers of --seed: a shape from config.json alone, for timing; labelled as such in all that it makes
    Dummy,
}

/// Storage format of weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum DtypeArg {
    F32,
    F16,
    Bf16,
}

impl DtypeArg {
    pub(super) fn dtype(self) -> DType {
        match self {
            Self::F32 => DType::F32,
            Self::F16 => DType::F16,
            Self::Bf16 => DType::BF16,
        }
    }
}

/// Block formats that weights can be rounded to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum QuantizeArg {
    /// 8.5 bits per weight: hardly to be told from f32
    #[value(name = "q8_0")]
    Q8Zero,
    /// 6.6 bits
    #[value(name = "q6k")]
    Q6K,
    /// 5.5 bits
    #[value(name = "q5k")]
    Q5K,
    /// 4.5 bits
    #[value(name = "q4k")]
    Q4K,
    /// 4.5 bits, in blocks of 32: coarser than q4k, for rows that are no multiple of 256
    #[value(name = "q4_0")]
    Q4Zero,
    /// 8 bits with an exponent (e4m3), on a CUDA device of compute capability 8.9 or newer; activations too, on the way
    Fp8,
}

impl QuantizeArg {
    /// ggml's block format; `None`: fp8.
    fn format(self) -> Option<GgmlDType> {
        match self {
            Self::Q8Zero => Some(GgmlDType::Q8_0),
            Self::Q6K => Some(GgmlDType::Q6K),
            Self::Q5K => Some(GgmlDType::Q5K),
            Self::Q4K => Some(GgmlDType::Q4K),
            Self::Q4Zero => Some(GgmlDType::Q4_0),
            Self::Fp8 => None,
        }
    }

    /// Whether the device can.
    fn check(self, compute: &Compute) -> anyhow::Result<()> {
        let message = match (self, compute.about()?) {
            (Self::Fp8, Some(about)) if about.has_fp8 => return Ok(()),
            (Self::Fp8, Some(_)) => {
                "--quantize fp8 wants a card of compute capability 8.9 or newer\nhint: leave it out: weights stay in --dtype"
            }
            (Self::Fp8, None) => {
                "--quantize fp8 is for CUDA devices\nhint: give --device cuda, or --quantize q8_0 on the CPU"
            }
            (_, about) if about.is_some() || compute.device.is_cpu() => return Ok(()),
            _ => "--quantize keeps weights in blocks on the CPU and on CUDA devices\nhint: give --device cpu",
        };
        Err(UsageError(message.to_owned()).into())
    }
}

/// How activations enter products with weights in blocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum ActivationsArg {
    /// Rounded on the fly, 32 numbers against the largest of them: products of integers, several times as fast
    Int8,
    /// As they are: exact, slower than weights in f32
    F32,
}

/// How products with dense weights are summed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum ProductsArg {
    /// bf16x3 where the processor has a matrix unit (AMX), else fma; on a CUDA device cuBLASLt's, and own where that has none
    Auto,
    /// One chain of fused multiply-adds for each output
    Fma,
    /// Inputs in three bf16 parts, for weights that bf16 holds exactly: several times as fast with a matrix unit, slower without one
    Bf16x3,
    /// Our own kernels on a CUDA device, also where cuBLASLt has one that gives a row the same bits in any batch; fma on the CPU
    Own,
}

impl ProductsArg {
    fn products(self) -> DenseProducts {
        match self {
            Self::Auto => DenseProducts::detect(),
            Self::Fma => DenseProducts::Fma,
            Self::Bf16x3 => DenseProducts::Bf16x3,
            Self::Own => DenseProducts::Own,
        }
    }
}

/// How the cache keeps keys and values.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum KvDtypeArg {
    /// As they are computed on the CPU
    F32,
    /// Half the memory of f32; the answers hardly change
    F16,
    /// Half the memory; eight times as coarse as f16, with a wider range
    Bf16,
    /// A quarter of the memory and a little more, on the CPU: each head of each token against its largest number
    Int8,
    /// Half the memory of 16 bits, on a CUDA device: 3 bits behind the point
    Fp8,
}

impl KvDtypeArg {
    fn format(self) -> KvFormat {
        match self {
            Self::F32 => KvFormat::F32,
            Self::F16 => KvFormat::F16,
            Self::Bf16 => KvFormat::Bf16,
            Self::Int8 => KvFormat::Int8,
            Self::Fp8 => KvFormat::Fp8,
        }
    }
}

/// Which version of the operations.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub(super) enum OpsArg {
    /// Our own for the device, as far as there are such
    Native,
    /// Candle's: slower, on any device; what our own are held against
    Portable,
}

/// The cache's format: what was asked for, where the device has it.
fn kv_format(asked: Option<KvDtypeArg>, default: KvFormat, on_cpu: bool) -> Result<KvFormat, UsageError> {
    match asked {
        Some(KvDtypeArg::Int8) if !on_cpu => Err(UsageError(
            "--kv-dtype int8 keeps the cache in 8 bits on the CPU only\nhint: give --device cpu, or --kv-dtype fp8"
                .to_owned(),
        )),
        Some(KvDtypeArg::Fp8) if on_cpu => {
            Err(UsageError("--kv-dtype fp8 is for CUDA devices\nhint: give --kv-dtype int8 on the CPU".to_owned()))
        }
        Some(asked) => Ok(asked.format()),
        None => Ok(default),
    }
}

/// Flags of every command that runs a model.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Engine")]
pub(super) struct EngineArgs {
    /// Where to compute: auto, cpu, cuda, cuda:1, metal. Several share the work, each with the whole model: cuda:0,cuda:1. A model that
    /// does not fit one card is cut by layers over several: cuda:0+cuda:1
    #[arg(long, default_value = "auto", value_parser = parse_joined, value_delimiter = ',')]
    device: Vec<Joined>,
    /// Format that weights are kept in [default: f32 on the CPU, bf16 on a GPU]. On the CPU arithmetic is f32 in any case;
    /// bf16 and f16 halve the memory
    #[arg(long)]
    dtype: Option<DtypeArg>,
    /// Round weight matrices and embeddings to this block format while loading: less memory, other answers. Norms, biases and
    /// routers stay as they are; so do weights that are published in blocks
    #[arg(long)]
    quantize: Option<QuantizeArg>,
    /// How activations enter products with weights in blocks (--quantize, GGUF), on the CPU
    #[arg(long, default_value = "int8")]
    activations: ActivationsArg,
    /// How products with dense weights are summed. They differ in last bits, so a run keeps to one; on the CPU each gives the same
    /// bits on every machine
    #[arg(long, default_value = "auto")]
    products: ProductsArg,
    /// Whose operations compute. The two differ in last bits, so a run keeps to one
    #[arg(long, value_enum, default_value = "native")]
    ops: OpsArg,
    /// Format of the KV cache [default: f32 on the CPU, that of the weights on a GPU]. A smaller one holds more sequences in
    /// --kv-memory; the answers are other ones, so a run keeps to its first choice
    #[arg(long)]
    kv_dtype: Option<KvDtypeArg>,
    /// Most sequences computed together [default: 64, on a CUDA device 256]; changes speed and memory, never an answer
    #[arg(long, value_parser = positive)]
    max_batch: Option<usize>,
    /// Most tokens computed in one step [default: 256, on a CUDA device 2048]; changes speed and memory, never an answer
    #[arg(long, value_parser = positive)]
    step_tokens: Option<usize>,
    /// Tokens per block of the KV cache
    #[arg(long, default_value_t = 32, value_parser = block_size)]
    block_size: usize,
    /// Size of the KV cache in tokens
    #[arg(long, conflicts_with = "kv_memory", value_parser = positive)]
    kv_tokens: Option<usize>,
    /// Size of the KV cache in memory, for example 2GiB [default: 2GiB, on a CUDA device what weights and the largest step leave]
    #[arg(long, value_parser = parse_bytes)]
    kv_memory: Option<usize>,
    /// On a CUDA device: launch each kernel by itself, not decode steps as wholes that were captured. Slower, the same answers; to find
    /// out where something goes wrong
    #[arg(long)]
    eager: bool,
    /// Longest prompt and answer together, in tokens [default: what the model was made for]
    #[arg(long, value_parser = positive)]
    pub(super) max_len: Option<usize>,
    /// Threads [default: all cores]
    #[arg(long, value_parser = positive)]
    pub(super) threads: Option<usize>,
    /// Where weights come from
    #[arg(long, value_enum, default_value = "files")]
    weights: WeightsArg,
}

/// Devices that hold a model together.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Joined(Vec<DeviceChoice>);

fn parse_joined(text: &str) -> Result<Joined, String> {
    text.split('+').map(parse_device).collect::<Result<_, _>>().map(Joined)
}

/// Sequences and tokens of a step: what keeps a card busy, and what stays in a processor's caches.
const ON_CUDA: (usize, usize) = (256, 2048);
const ELSEWHERE: (usize, usize) = (64, 256);

/// Opens devices that hold a model together.
fn open(joined: &Joined, dtype: Option<DType>) -> anyhow::Result<Compute> {
    let (first, behind) = joined.0.split_first().unwrap_or((&DeviceChoice::Auto, &[]));
    let mut compute = Compute::new(*first, dtype)?;
    for &choice in behind {
        let further = Compute::new(choice, Some(compute.weight_dtype))?;
        check_kind(&compute, &further)?;
        compute.further.push(further);
    }
    Ok(compute)
}

/// Devices that share work compute in the same way.
fn check_kind(one: &Compute, other: &Compute) -> Result<(), UsageError> {
    match one.device.is_cpu() == other.device.is_cpu() && one.kernels.is_some() == other.kernels.is_some() {
        true => Ok(()),
        false => {
            let message = "--device takes several devices of one kind\nhint: for example cuda:0,cuda:1";
            Err(UsageError(message.to_owned()))
        }
    }
}

/// See [`EngineArgs::start_threads`].
pub(super) fn start_threads(threads: Option<usize>, num_engines: usize) -> anyhow::Result<()> {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads.unwrap_or(0));
    // Several engines have threads of their own, and this one waits for them: as one of the pool's it would keep work waiting.
    let pool = if num_engines > 1 { pool } else { pool.use_current_thread() };
    Ok(pool.build_global()?)
}

impl EngineArgs {
    /// Sets the size of the thread pool; once per process, before any work, on the thread that will run the engine: it is one of
    /// the pool's, so that no step waits for another thread to begin, unless there are several engines.
    pub(super) fn start_threads(&self) -> anyhow::Result<()> {
        start_threads(self.threads, self.device.len())
    }

    /// Device and formats.
    pub(super) fn compute(&self) -> anyhow::Result<Compute> {
        let auto = Joined(vec![DeviceChoice::Auto]);
        let compute = open(self.device.first().unwrap_or(&auto), self.dtype.map(DtypeArg::dtype))?;
        let mut named = BTreeSet::new();
        let all = self.device.iter().flat_map(|joined| &joined.0);
        if !compute.device.is_cpu() && !all.map(|choice| format!("{choice:?}")).all(|name| named.insert(name)) {
            let message = "--device names a device twice\nhint: each card once, for example cuda:0,cuda:1";
            return Err(UsageError(message.to_owned()).into());
        }
        if let Some(quantize) = self.quantize {
            quantize.check(&compute)?;
        }
        let block_inputs = match self.activations {
            ActivationsArg::Int8 => BlockInputs::Int8,
            ActivationsArg::F32 => BlockInputs::F32,
        };
        let kv_format = kv_format(self.kv_dtype, compute.kv_format, compute.device.is_cpu())?;
        let (quantize, products) = (self.quantize.and_then(QuantizeArg::format), self.products.products());
        let fp8 = matches!(self.quantize, Some(QuantizeArg::Fp8));
        let compute = compute.each(|compute| Compute { fp8, quantize, products, block_inputs, kv_format, ..compute });
        Ok(match self.ops {
            OpsArg::Native => compute,
            OpsArg::Portable => compute.portable(),
        })
    }

    /// Whether the program is to choose the device.
    pub(super) fn has_no_device(&self) -> bool {
        self.device.iter().all(|joined| joined.0 == [DeviceChoice::Auto])
    }

    /// Refuses several devices where one engine is measured.
    pub(super) fn check_one_device(&self) -> Result<(), UsageError> {
        match self.device.len() {
            0 | 1 => Ok(()),
            _ => Err(UsageError("bench measures one device\nhint: give --device one of them".to_owned())),
        }
    }

    /// The devices beside that of `compute`, in the same formats.
    fn others(&self, compute: &Compute) -> anyhow::Result<Vec<Compute>> {
        let mut others = Vec::new();
        let place = |found: Compute| Compute { device: found.device, kernels: found.kernels, ..compute.clone() };
        for joined in self.device.iter().skip(1) {
            let found = open(joined, Some(compute.weight_dtype))?;
            check_kind(compute, &found)?;
            let further =
                found.further.iter().cloned().map(|further| Compute { further: Vec::new(), ..place(further) });
            others.push(Compute { further: further.collect(), ..place(found.clone()) });
        }
        Ok(others)
    }

    /// The devices, for a run's record.
    pub(super) fn describe(&self, compute: &Compute) -> String {
        match self.device.len() {
            0 | 1 => compute.describe(),
            count => format!("{count} x {}", compute.describe()),
        }
    }

    /// Batch and cache.
    pub(super) fn engine_options(&self, compute: &Compute) -> EngineOptions {
        let (max_batch, step_tokens) = if compute.kernels.is_some() { ON_CUDA } else { ELSEWHERE };
        EngineOptions {
            max_batch: self.max_batch.unwrap_or(max_batch),
            max_step_tokens: self.step_tokens.unwrap_or(step_tokens),
            block_size: self.block_size,
            kv_budget: match (self.kv_tokens, self.kv_memory) {
                (Some(tokens), _) => KvBudget::Tokens(tokens),
                (None, Some(bytes)) => KvBudget::Bytes(bytes),
                (None, None) => KvBudget::Free,
            },
            prefix_cache: true,
            captures: !self.eager,
        }
    }

    /// Whether every device that is named is the processor.
    pub(super) fn is_cpu(&self) -> bool {
        !self.device.is_empty() && self.device.iter().all(|joined| joined.0.iter().all(|one| *one == DeviceChoice::Cpu))
    }

    /// Formats, batch and cache as they would be on a CUDA device, or on the processor where that is named; opens no device.
    pub(super) fn formats(&self) -> Formats {
        let on_card = !self.is_cpu();
        let (max_batch, step_tokens) = if on_card { ON_CUDA } else { ELSEWHERE };
        let dtype = self.dtype.map_or(if on_card { DType::BF16 } else { DType::F32 }, DtypeArg::dtype);
        let usual = match (on_card, dtype) {
            (true, DType::F16) => KvFormat::F16,
            (true, DType::BF16) => KvFormat::Bf16,
            _ => KvFormat::F32,
        };
        Formats {
            dtype,
            quantize: self.quantize.and_then(QuantizeArg::format),
            fp8: matches!(self.quantize, Some(QuantizeArg::Fp8)),
            kv: self.kv_dtype.map_or(usual, KvDtypeArg::format),
            max_batch: self.max_batch.unwrap_or(max_batch),
            step_tokens: self.step_tokens.unwrap_or(step_tokens),
            block_size: self.block_size,
            kv_tokens: self.kv_tokens,
            kv_memory: self.kv_memory,
            max_len: self.max_len,
        }
    }

    /// Weights from files or random.
    pub(super) fn weights(&self, seed: u64) -> WeightsKind {
        match self.weights {
            WeightsArg::Files => WeightsKind::Files,
            WeightsArg::Dummy => WeightsKind::Dummy { seed },
        }
    }

    /// The limit on a sequence's length.
    pub(super) fn max_len(&self) -> Option<usize> {
        self.max_len
    }

    /// All that loading a model takes. `label`: the embedded demonstration model's.
    pub(super) fn text_model(
        &self,
        compute: &Compute,
        seed: u64,
        template: &TemplateOptions,
        label: Option<&str>,
    ) -> anyhow::Result<TextModelOptions> {
        Ok(TextModelOptions {
            compute: compute.clone(),
            others: self.others(compute)?,
            weights: self.weights(seed),
            max_len: self.max_len,
            engine: self.engine_options(compute),
            template: template.clone(),
            label: label.map(str::to_owned),
        })
    }
}

pub(super) fn parse_device(text: &str) -> Result<DeviceChoice, String> {
    match text {
        "auto" => Ok(DeviceChoice::Auto),
        "cpu" => Ok(DeviceChoice::Cpu),
        "metal" => Ok(DeviceChoice::Metal),
        "cuda" => Ok(DeviceChoice::Cuda(0)),
        other => match other.strip_prefix("cuda:").and_then(|index| index.parse().ok()) {
            Some(index) => Ok(DeviceChoice::Cuda(index)),
            None => Err("want auto, cpu, cuda, cuda:INDEX or metal".to_owned()),
        },
    }
}

fn block_size(text: &str) -> Result<usize, String> {
    match text.parse::<usize>() {
        Ok(size @ (16 | 32 | 64 | 128 | 256)) => Ok(size),
        _ => Err("want 16, 32, 64, 128 or 256".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cache_takes_8_bits_on_the_cpu_alone() {
        let asked = Some(KvDtypeArg::Int8);
        assert_eq!(kv_format(asked, KvFormat::F32, true).unwrap(), KvFormat::Int8);
        let error = kv_format(asked, KvFormat::Bf16, false).unwrap_err().to_string();
        assert!(error.contains("--kv-dtype int8") && error.contains("hint: "), "{error}");
        for (asked, want) in [(None, KvFormat::Bf16), (Some(KvDtypeArg::F32), KvFormat::F32)] {
            assert_eq!(kv_format(asked, KvFormat::Bf16, false).unwrap(), want);
        }
    }

    #[test]
    fn devices_have_names() {
        assert_eq!(parse_device("cuda:3"), Ok(DeviceChoice::Cuda(3)));
        assert!(parse_device("gpu").is_err());
    }
}
