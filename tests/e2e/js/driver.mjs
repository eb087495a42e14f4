// The official JavaScript SDK as a program: commands come in as JSON lines, results and events go out as JSON lines.
// ../sdk.py drives it, and py/driver.py speaks the same vocabulary.
import { createInterface } from 'node:readline';
import { Centrifuge } from 'centrifuge';
import { Centrifuge as CentrifugeProtobuf } from 'centrifuge/build/protobuf';
import SockJS from 'sockjs-client';
import EventSource from 'eventsource';
import WebSocket from 'ws';

const clients = new Map();
const wanted = new Map(); // questions that the SDK asked the application (tokens, states) and that wait for an answer
let questions = 0;

function emit(line) {
  process.stdout.write(JSON.stringify(line) + '\n');
}

function ask(event, { UnauthorizedError: Unauthorized }) {
  const question = ++questions;
  emit({ ...event, question });
  return new Promise((resolve, reject) => wanted.set(question, { resolve, reject, Unauthorized }));
}

class Driven {
  constructor({ client: name, url, protobuf, ask_token, headers, sockjs, transport, emulation, ...options }) {
    this.name = name;
    this.protobuf = protobuf;
    const Client = protobuf ? CentrifugeProtobuf : Centrifuge;
    const WithHeaders = class extends WebSocket {
      constructor(address, protocols) {
        super(address, protocols, { headers: headers ?? {} });
      }
    };
    const named = transport ?? (sockjs ? 'sockjs' : undefined);
    this.sdk = new Client(named ? [{ transport: named, endpoint: url }] : url, {
      websocket: WithHeaders,
      ...(sockjs ? { sockjs: SockJS, sockjsOptions: { transports: [sockjs] } } : {}),
      ...(transport ? { emulationEndpoint: emulation, eventsource: EventSource } : {}),
      timeout: 60_000, // the machine may be busy
      minReconnectDelay: 10,
      maxReconnectDelay: 100,
      ...(options.token ? { token: options.token } : {}),
      ...(options.data !== undefined ? { data: this.encode(options.data) } : {}),
      ...(ask_token ? { getToken: () => ask({ event: 'token_wanted', client: name }, Client) } : {}),
    });
    this.subscriptions = new Map();
    for (const event of ['connecting', 'connected', 'disconnected', 'error']) {
      this.sdk.on(event, (ctx) => this.tell(event, ctx));
    }
    for (const event of ['subscribing', 'subscribed', 'unsubscribed', 'publication', 'join', 'leave']) {
      this.sdk.on(event, (ctx) => this.tell(event, ctx, { server: true }));
    }
  }

  encode(data) {
    return this.protobuf ? new TextEncoder().encode(JSON.stringify(data)) : data;
  }

  decode(data) {
    if (data === undefined || data === null || !this.protobuf) return data;
    if (data.length === 0) return undefined;
    try {
      return JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(data));
    } catch {
      return { hex: Buffer.from(data).toString('hex') };
    }
  }

  info(info) {
    if (!info) return undefined;
    const { client, user, connInfo, chanInfo } = info;
    return { client, user, conn_info: this.decode(connInfo), chan_info: this.decode(chanInfo) };
  }

  publication(pub) {
    return { data: this.decode(pub.data), offset: pub.offset, tags: pub.tags, info: this.info(pub.info) };
  }

  tell(event, ctx, more = {}) {
    const line = { event, client: this.name, channel: ctx.channel, ...more };
    if (event === 'publication') Object.assign(line, this.publication(ctx));
    else if (event === 'join' || event === 'leave') line.info = this.info(ctx.info);
    else if (event === 'error') Object.assign(line, { code: ctx.error?.code, reason: ctx.error?.message });
    else if (event === 'subscribed') {
      Object.assign(line, {
        recoverable: ctx.recoverable,
        positioned: ctx.positioned,
        position: ctx.streamPosition,
        was_recovering: ctx.wasRecovering,
        recovered: ctx.recovered,
        data: this.decode(ctx.data),
      });
    } else Object.assign(line, { code: ctx.code, reason: ctx.reason });
    if (event === 'connected') Object.assign(line, { client_id: ctx.client, data: this.decode(ctx.data) });
    emit(line);
  }

  subscribe({ channel, ask_token, ask_state, join_leave, data, ...options }) {
    let subscription = this.subscriptions.get(channel);
    if (!subscription) {
      subscription = this.sdk.newSubscription(channel, {
        minResubscribeDelay: 10,
        ...options,
        ...(join_leave ? { joinLeave: true } : {}),
        ...(data !== undefined ? { data: this.encode(data) } : {}),
        ...(ask_token ? { getToken: () => ask({ event: 'token_wanted', client: this.name, channel }, this.sdk.constructor) } : {}),
        ...(ask_state ? { getState: () => ask({ event: 'state_wanted', client: this.name, channel }, this.sdk.constructor) } : {}),
      });
      this.subscriptions.set(channel, subscription);
      for (const event of ['subscribing', 'subscribed', 'unsubscribed', 'publication', 'join', 'leave', 'error']) {
        subscription.on(event, (ctx) => this.tell(event, { ...ctx, channel }));
      }
    }
    subscription.subscribe();
    return {};
  }
}

const operations = {
  client: (args) => {
    clients.set(args.client, new Driven(args));
    return {};
  },
  connect: ({ driven }) => (driven.sdk.connect(), {}),
  disconnect: ({ driven }) => (driven.sdk.disconnect(), {}),
  subscribe: ({ driven, ...args }) => driven.subscribe(args),
  unsubscribe: ({ driven, channel }) => (driven.subscriptions.get(channel).unsubscribe(), {}),
  publish: ({ driven, channel, data, hex }) =>
    driven.sdk.publish(channel, hex === undefined ? driven.encode(data) : Buffer.from(hex, 'hex')).then(() => ({})),
  rpc: async ({ driven, method, data }) => {
    const result = await driven.sdk.rpc(method, driven.encode(data));
    return { data: driven.decode(result.data) };
  },
  presence: async ({ driven, channel }) => {
    const { clients: present } = await driven.sdk.presence(channel);
    return { clients: Object.fromEntries(Object.entries(present).map(([id, info]) => [id, driven.info(info)])) };
  },
  presence_stats: async ({ driven, channel }) => {
    const { numClients, numUsers } = await driven.sdk.presenceStats(channel);
    return { num_clients: numClients, num_users: numUsers };
  },
  history: async ({ driven, channel, ...options }) => {
    const { publications, offset, epoch } = await driven.sdk.history(channel, options);
    return { publications: publications.map((pub) => driven.publication(pub)), offset, epoch };
  },
  reset: () => {
    for (const { sdk } of clients.values()) sdk.disconnect();
    clients.clear();
    wanted.clear();
    return {};
  },
  answer: ({ question, value, refuse }) => {
    const { resolve, reject, Unauthorized } = wanted.get(question);
    wanted.delete(question);
    if (refuse) reject(new Unauthorized('refused'));
    else resolve(value);
    return {};
  },
};

for await (const line of createInterface({ input: process.stdin })) {
  const { id, op, ...args } = JSON.parse(line);
  const driven = op === 'client' ? undefined : clients.get(args.client);
  Promise.resolve()
    .then(() => operations[op](driven ? { ...args, driven } : args))
    .then((result) => emit({ id, result }))
    .catch((error) => emit({ id, error: { code: error.code, message: error.message ?? String(error) } }));
}
process.exit(0);
