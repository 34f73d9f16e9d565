/** What goes wrong. */
export class GeluError extends Error {
  readonly code: "refused" | "disconnected" | "plan" | "input" | "key" | "protocol" | "unsupported";
  constructor(code: string, message: string);
}

/** What a server says of a model; the names are those of `gelu.proto`. */
export interface Model {
  name: string;
  input: number[];
  outputs: number;
  classes: string[];
  preprocessing: Record<string, unknown> | null;
  cost: Record<string, number> | null;
  hidden: ({ logits: boolean } & Record<string, number | boolean>) | null;
  training: Record<string, unknown> | null;
}

/** Asks a server which models it offers. */
export function listModels(server: string): Promise<Model[]>;

/** One thing that was done. */
export interface Step {
  /** The part of the network that it is about, such as `conv1`. */
  name: string;
  side: "client" | "server" | "wire";
  kind: "open" | "prepare" | "encrypt" | "decrypt" | "activate" | "evaluate" | "send" | "receive" | "wait";
  direction: "up" | "down" | null;
  bytes: number;
  ciphertexts: number;
  seconds: number;
  /** The first 4 kB of what travelled. */
  sample: Uint8Array | null;
}

export interface Result {
  /** The outputs before a final softmax; none where the server reveals the class alone. */
  outputs: Float64Array;
  /** The outputs, where the network ends in a softmax. */
  probabilities: Float64Array | null;
  /** The index of the largest output. */
  class: number;
  /** The last sums, as they were decrypted. */
  integers: BigInt64Array;
  /** Numbers that were clamped to their declared range. */
  clamped: number;
  /** Bytes of messages to the server, and from it. */
  bytesUp: number;
  bytesDown: number;
  seconds: number;
  steps: Step[];
}

export interface KeyOptions {
  /** 1024 (for tests), 2048, 3072 or 4096. Default: 2048. */
  keyBits?: number;
  /** Default: subgroup. */
  keyType?: "djn" | "subgroup";
  /** A key that was sealed, and its passphrase, in place of a new one. */
  key?: Uint8Array | null;
  passphrase?: string | null;
  /** Threads that compute, in pages that are kept apart from other sites. Default: the processors, 8 at most. */
  threads?: number | null;
}

export interface ConnectOptions {
  /** Whether the network is to be hidden from this client. */
  hidden?: boolean;
  /** What a hidden network reveals. Default: logits, where the server grants them. */
  reveal?: "logits" | "class";
  onStep?: ((step: Step) => void) | null;
  /** Seconds for a broken connection to be made again. Default: 120. */
  patience?: number;
}

/** A key in workers of its own, and sessions with it. */
export class Client {
  private constructor();
  static create(options?: KeyOptions): Promise<Client>;
  readonly key: { bits: number; type: "djn" | "subgroup"; fingerprint: string };
  /** What the arithmetic is computed by. */
  readonly backend: string;
  /** How many threads compute: one where the page shares no memory with its workers. */
  readonly threads: number;
  /** The key file under a passphrase. */
  seal(passphrase: string): Promise<Uint8Array>;
  /** Makes random factors for so many ciphertexts, for all sessions to come: nothing is sent, and an input is encrypted sooner. */
  prepare(ciphertexts: number): Promise<{ seconds: number }>;
  connect(server: string, model: string, options?: ConnectOptions): Promise<Session>;
  /** Wipes the key and ends the worker. */
  destroy(): Promise<void>;
}

/** A session about one model, for one input after another. */
export class Session {
  private constructor();
  /** The extents of an input. */
  readonly input: number[];
  /** The names of the network's segments. */
  readonly segments: string[];
  /** Makes what can be made before there is an input: random factors, or whole queries of a hidden network. */
  prepare(count?: number): Promise<{ seconds: number }>;
  infer(input: ArrayLike<number>, options?: { onStep?: ((step: Step) => void) | null }): Promise<Result>;
  close(): Promise<void>;
}
