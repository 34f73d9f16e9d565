// A double of the client for looking at the page: made-up steps and an answer that follows from the ink.

export class GeluError extends Error {
  constructor(code, message) {
    super(message);
    this.code = code;
  }
}

export async function listModels(server) {
  const response = await fetch(new URL("/v1/models", server));
  return response.json();
}

const pause = (milliseconds) => new Promise((resolve) => setTimeout(resolve, milliseconds));

export class Client {
  static async create() {
    const client = new Client();
    client.key = { bits: 2048, type: "subgroup", fingerprint: "3f7a90c2d4e15b68" };
    return client;
  }

  async seal() {
    return new Uint8Array(64);
  }

  async connect(_server, _model, { onStep }) {
    return {
      prepare: async () => {},
      close: async () => {},
      infer: async () => {
        const sample = () => crypto.getRandomValues(new Uint8Array(4096));
        for (const name of ["conv1", "conv2", "fc1", "fc2", "fc3"]) {
          onStep({ name, side: "client", kind: "encrypt", direction: null, bytes: 0, ciphertexts: 24, seconds: 0.031, sample: null });
          onStep({ name, side: "wire", kind: "send", direction: "up", bytes: 24 * 512, ciphertexts: 24, seconds: 0.002, sample: sample() });
          await pause(10);
          onStep({ name, side: "server", kind: "wait", direction: null, bytes: 0, ciphertexts: 0, seconds: 0.018, sample: null });
          onStep({ name, side: "wire", kind: "receive", direction: "down", bytes: 18 * 512, ciphertexts: 18, seconds: 0.002, sample: sample() });
          onStep({ name, side: "client", kind: "decrypt", direction: null, bytes: 0, ciphertexts: 18, seconds: 0.022, sample: null });
        }
        const probabilities = Float64Array.from({ length: 10 }, (_, at) => (at === 3 ? 0.964 : 0.004));
        return { outputs: probabilities, probabilities, class: 3 };
      },
    };
  }

  async destroy() {}
}
