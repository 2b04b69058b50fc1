// SPDX-License-Identifier: Apache-2.0
//
// The prose of --help. Lines of examples begin with "  $ " and are run by the tests.
#pragma once

namespace unweight::cli {

inline constexpr char kMainDescription[] =
    "unweight - lossless compression of BF16 model weights\n"
    "\n"
    "Makes a Hugging Face style checkpoint about 30% smaller, in a form that GPU kernels\n"
    "read directly, or about 34% in one for storage and transfer, and restores it byte for byte.";

inline constexpr char kMainFooter[] =
    R"(Examples:
  $ unweight compress Llama-3.1-8B Llama-3.1-8B-unweight
  $ unweight verify Llama-3.1-8B-unweight
  $ unweight decompress Llama-3.1-8B-unweight restored

'unweight COMMAND --help' describes a command.

Exit codes:
  0  success
  1  usage: wrong arguments, or the output exists already
  2  data: a file is missing, damaged or not what it should be, or the disk is full
  3  device: no usable GPU
  130, 143  stopped by SIGINT (Ctrl-C), SIGTERM

Environment:
  UNWEIGHT_THREADS        default of --threads
  TERM                    'dumb': no progress line
  LC_ALL, LC_CTYPE, LANG  with UTF-8, the progress line is drawn with block characters)";

inline constexpr char kCompressDescription[] =
    "Compress a checkpoint into a bundle.\n"
    "\n"
    "SOURCE is a folder with .safetensors files, or one .safetensors file; it is never changed.\n"
    "OUT is a new folder of the same layout: BF16 tensors become unweight blobs, everything else\n"
    "is carried over, exact duplicates are stored once. OUT appears when it is complete; until\n"
    "then the work stands in OUT.partial. After an interruption, whatever its cause, the same\n"
    "command continues there, and the result is the same.\n"
    "\n"
    "--profile distribution makes the smallest bundle, for storage and transfer; 'transcode' turns\n"
    "one profile into the other.";

inline constexpr char kCompressFooter[] =
    R"(Examples:
  $ unweight compress Llama-3.1-8B Llama-3.1-8B-unweight
  $ unweight compress --json --threads 8 Llama-3.1-8B Llama-3.1-8B-unweight
  $ unweight compress --profile distribution Llama-3.1-8B Llama-3.1-8B-small

Several processes or machines that share a file system:
  $ unweight compress --shard 0/2 Llama-3.1-8B Llama-3.1-8B-unweight
  $ unweight compress --shard 1/2 Llama-3.1-8B Llama-3.1-8B-unweight
  $ unweight finish Llama-3.1-8B Llama-3.1-8B-unweight
  In a Slurm array: --shard "$SLURM_ARRAY_TASK_ID/$SLURM_ARRAY_TASK_COUNT" with --array=0-(N-1).)";

inline constexpr char kFinishDescription[] =
    "Join the shares of 'compress --shard i/n'.\n"
    "\n"
    "SOURCE and OUT are those of the shares, all of which must be done. The bundle is the same,\n"
    "byte for byte, as that of one process.";

inline constexpr char kFinishFooter[] =
    R"(Examples:
  $ unweight finish Llama-3.1-8B Llama-3.1-8B-unweight)";

inline constexpr char kDecompressDescription[] =
    "Restore the source of a bundle, byte for byte.\n"
    "\n"
    "OUT is a new folder with every file of the source. It appears when all files have the\n"
    "SHA-256 that they had. An interrupted run is continued by the same command.";

inline constexpr char kDecompressFooter[] =
    R"(Examples:
  $ unweight decompress Llama-3.1-8B-unweight Llama-3.1-8B-restored)";

inline constexpr char kVerifyDescription[] =
    "Check a bundle without writing anything.\n"
    "\n"
    "Checks the structure and every checksum, decodes every tensor, and compares the SHA-256 of\n"
    "every source file, as it would be restored, with the recorded one. With --against, also\n"
    "with the bytes of SOURCE.";

inline constexpr char kVerifyFooter[] =
    R"(Examples:
  $ unweight verify Llama-3.1-8B-unweight
  $ unweight verify Llama-3.1-8B-unweight --against Llama-3.1-8B)";

inline constexpr char kTranscodeDescription[] =
    "Turn a bundle of one profile into one of the other.\n"
    "\n"
    "OUT has the same bytes as 'compress' makes of the source with that profile, without the source\n"
    "being restored to disk. Every checksum of BUNDLE is checked on the way. An interrupted run is\n"
    "continued by the same command.";

inline constexpr char kTranscodeFooter[] =
    R"(Examples:
  $ unweight transcode Llama-3.1-8B-unweight Llama-3.1-8B-small --profile distribution
  $ unweight transcode Llama-3.1-8B-small Llama-3.1-8B-again --profile runtime)";

inline constexpr char kInspectDescription[] =
    "Show what a checkpoint or a bundle holds, tensor by tensor.\n"
    "\n"
    "PATH is a bundle, a folder with .safetensors files, or one .safetensors file. For what is not\n"
    "compressed yet, it shows what 'compress' would do.";

inline constexpr char kInspectFooter[] =
    R"(Columns:
  stored       blob (compressed), raw (as it was), alias (same as another tensor, not stored)
  bits/weight  stored bits for each value, duplicates left out; 16 is uncompressed BF16
  entropy      of the exponent, in bits; 8 more (sign and mantissa) is the floor of exponent coding
  palettes     sets of 8 exponents that the rows choose from; runtime profile only
  exceptions   values whose exponent is outside of their row's palette; in the distribution
               profile, values that no symbol stands for

Examples:
  $ unweight inspect Llama-3.1-8B
  $ unweight inspect Llama-3.1-8B-unweight --report report.html
  $ unweight inspect --no-histograms --json Llama-3.1-8B-unweight)";

inline constexpr char kSynthDescription[] =
    "Write a synthetic checkpoint with the shapes of a known model.\n"
    "\n"
    "Names, shapes, files, index and config are those of the real checkpoint; the weights are\n"
    "random (row sigma 0.02 * 2^(0.5 n), n and the weights normal, rounded to BF16), so that\n"
    "they compress like trained ones but are of no other use. The same seed gives the same bytes\n"
    "on every machine.";

inline constexpr char kSynthFooter[] =
    R"(Examples:
  $ unweight synth --list
  $ unweight synth --model tiny-llama-test tiny)";

inline constexpr char kTuneDescription[] =
    "Measure which way of multiplying is best for every matrix and batch size, and write a plan.\n"
    "\n"
    "For each shape and number of tokens: the fused kernels with all their configurations, a decode\n"
    "to memory before cuBLASLt's algorithms, and cuBLASLt on raw weights. Every candidate is checked\n"
    "bit for bit before it is timed. The plan also says which matrices are to be kept raw, by the\n"
    "objective and the memory: 'latency' wherever that is faster, 'memory' none, 'balanced' where\n"
    "compressed they would be slower than 0.97 times cuBLAS.";

inline constexpr char kTuneFooter[] =
    R"(Examples:
  $ unweight tune --from plan.json --objective memory -o small.json
  $ unweight tune --from plan.json --batch-sizes 1,64 --memory-budget 20GB -o mine.json --report mine.html
  On a machine with a GPU:
    unweight tune Llama-3.1-8B --batch-sizes 1,8,32 -o plan.json --report plan.html
    unweight tune --shapes 6144x4096:32,4096x4096:32,28672x4096:32,4096x14336:32 -o plan.json)";

inline constexpr char kPlanDescription[] =
    "Look into plans.\n"
    "\n"
    "show     what was measured and decided, what it costs, and what fits on the GPU\n"
    "explain  the choice for a weight, and what it was chosen from\n"
    "diff     choices in which two plans differ\n"
    "table    C++ for the library's built-in tables";

inline constexpr char kPlanFooter[] =
    R"(Examples:
  $ unweight plan show plan.json
  $ unweight plan show plan.json --report plan.html
  $ unweight plan explain plan.json --shape 4096x4096 --tokens 16
  $ unweight plan diff plan.json other.json
  $ unweight plan table plan.json)";

inline constexpr char kBenchDescription[] =
    "Measure the multiplication with compressed weights on this machine's GPU.\n"
    "\n"
    "Ceilings of the memory, the best of cuBLAS, and unweight's kernel with every configuration,\n"
    "for shapes of Llama 3.1 and 1 to 64 tokens, in one run. Nothing is timed that is wrong.\n"
    "All arguments are passed on to the benchmark, matmul_bench, which comes with builds that\n"
    "have a CUDA toolkit with cuBLAS and UNWEIGHT_BUILD_BENCH=ON.";

inline constexpr char kBenchFooter[] =
    R"(Arguments of the benchmark:
  SHAPE...      ROWSxCOLS, instead of the default shapes
  --quick       fewer shapes, candidates and rounds
  --all         more shapes
  --tokens N,N  numbers of tokens
  --json FILE   write all results
  --svg FILE    write a picture of the speed-ups)";

}  // namespace unweight::cli
