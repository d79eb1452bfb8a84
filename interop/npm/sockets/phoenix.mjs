// Sockets of the official Phoenix client.
import { Socket } from 'phoenix';
import WebSocket from 'ws';

/** Waits at most 10 s for a promise. */
export function soon(promise, what) {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`${what} took longer than 10 s`)), 10_000);
  });
  return Promise.race([promise, late]).finally(() => clearTimeout(timer));
}

/** Version 1 of the protocol, for which the client takes a codec. */
const version1 = {
  vsn: '1.0.0',
  encode: (message, callback) => callback(JSON.stringify(message)),
  decode: (text, callback) => callback(JSON.parse(text)),
};

/** Makes a socket, and records its messages and the codes with which it was closed.
 * params may be a function, which is asked before each connection. */
export function socketOf(t, platform, path, params, { version, ...options } = {}) {
  const socket = new Socket(platform.url.replace(/^http/, 'ws') + path, {
    transport: WebSocket, params, ...(version === 1 && version1), ...options,
  });
  const record = { socket, messages: [], closes: [], opened: 0 };
  socket.onMessage((message) => record.messages.push(message));
  socket.onClose((event) => record.closes.push(event.code));
  socket.onOpen(() => record.opened++);
  t.after(() => new Promise((resolve) => socket.disconnect(resolve)));
  return record;
}

/** Connects, and returns when the socket is open. */
export async function connect(t, platform, path, params, options) {
  const record = socketOf(t, platform, path, params, options);
  const open = new Promise((resolve) => record.socket.onOpen(resolve));
  record.socket.connect();
  await soon(open, `the connection to ${path}`);
  return record;
}

/** Joins a topic: its channel, and the events that arrive there. */
export async function join({ socket }, topic) {
  const channel = socket.channel(topic, {});
  const events = new Inbox();
  channel.onMessage = (event, payload) => {
    if (!event.startsWith('phx_') && !event.startsWith('chan_')) {
      events.put([event, payload]);
    }
    return payload;
  };
  return { channel, events, answer: await push(channel.join(), `the join of ${topic}`) };
}

/** Waits for the reply to a push: its status and its response. */
export function push(pushed, what) {
  return soon(new Promise((resolve) => {
    for (const status of ['ok', 'error', 'timeout']) {
      pushed.receive(status, (response) => resolve({ status, response }));
    }
  }), what);
}

/** The events of a channel, in their order. */
class Inbox {
  #events = [];
  #waiting = [];

  put(event) {
    const next = this.#waiting.shift();
    if (next) {
      next(event);
    } else {
      this.#events.push(event);
    }
  }

  next() {
    const event = this.#events.shift();
    return event ? Promise.resolve(event) : soon(new Promise((resolve) => this.#waiting.push(resolve)), 'the next event');
  }

  get size() {
    return this.#events.length;
  }
}
