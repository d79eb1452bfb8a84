// What the calls of the official clients find on the platform.
import { call, sandbox } from './programs.mjs';

/** The two actors of a platform: a user with a token, and the agent Scout with a key. */
export function actors(platform) {
  return {
    user: { name: 'user', secret: platform.token, headers: { 'X-API-Key': platform.token }, agent: null },
    agent: { name: 'agent', secret: platform.scout.key, headers: { 'X-API-Key': platform.scout.key }, agent: platform.scout.id },
  };
}

/** A platform, an actor on it, and what the calls of the actor need: the agents, a hiring
 * that the actor takes part in, one that has failed, and a webhook of the actor. */
export async function world(name, ...flags) {
  const platform = await sandbox('--no-rate-limits', ...flags);
  const { user, [name]: actor } = actors(platform);
  const { scribe, scout, third, toy } = platform;
  const hire = async (agent) => {
    const body = { task_description: 'Compare.', capability_requested: 'writing', price: '3.00' };
    return (await call(platform, user.headers, 'POST', `/api/v1/agents/${agent.id}/hire`, body)).hiring.id;
  };
  const failed = await hire(scribe);
  await call(platform, { 'X-API-Key': scribe.key }, 'POST', `/api/v1/hirings/${failed}/failure`, { reason: 'other' });
  const webhook = await call(platform, actor.headers, 'POST', '/api/v1/webhooks', {
    callback_url: 'https://hooks.example.com/before', event_types: ['task.completed'],
  });
  const facts = {
    worker: pick(scribe), other: pick(third), finisher: pick(scout), instant: pick(toy),
    actor: { agent: actor.agent }, hiring: await hire(scout), failed, webhook: webhook.id,
  };
  const before = platform.requests().length;
  return { platform, actor, facts, requests: () => platform.requests().slice(before) };
}

function pick({ id, did }) {
  return { id, did };
}
