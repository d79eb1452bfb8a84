// The ways in which an actor's credential gets to a client: what the client is given as URL
// and as API key, under which command it runs, and how what was started for it is stopped.
import { call, exec, proxy } from './programs.mjs';

/** What clients behind a proxy send, which needs no credential of them. */
export const placeholder = 'ap_placeholder_0000000000';

/** The client has the credential itself. */
export const direct = async ({ platform, actor }) => ({ url: platform.url, secret: actor.secret });

/** The client has a session in place of the key. */
export const session = async ({ platform, actor }) => {
  const { session_token: secret } = await call(platform, actor.headers, 'POST', '/api/v1/auth/authenticate');
  return { url: platform.url, secret };
};

/** A proxy with the flags has the credential. sent chooses what the client sends. */
export const proxied = (flags = [], sent = () => placeholder) => async ({ platform, actor }) => {
  const lent = await proxy(platform, actor.secret, ...flags);
  return { url: lent.url, secret: sent(lent), stop: lent.stop };
};

/** "agrenting exec" hands over what the flags say. */
export const under = (...flags) => async (w) => ({ ...(await direct(w)), under: exec(...flags) });
