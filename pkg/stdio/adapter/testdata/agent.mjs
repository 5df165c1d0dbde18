export async function handle(message) {
  console.log("the agent's own output")
  switch (message.do) {
    case 'object': return { a: 1 }
    case 'value': return [1, 2]
    case 'nothing': return
    case 'timeout': throw Object.assign(new Error('slow'), { name: 'TimeoutError' })
    case 'network': throw Object.assign(new TypeError('fetch failed'), { cause: { code: 'ECONNREFUSED' } })
    case 'other': throw new RangeError('x')
    case 'class': throw Object.assign(new Error('later'), { error_class: 'rate_limited', retry_after: 2.5 })
    case 'exit': throw new Error('exit')
    case 'unwritable': return { a: 1n }
    case 'wait': return new Promise((resolve) => setTimeout(() => resolve({ a: 'waited' }), 200))
  }
}

export function blocking(message) {
  return { blocking: message.do }
}

// told says how far it is, publishes, and waits for its end.
export async function told(message, ctx) {
  ctx.log.info('it has begun')
  ctx.progress(0.5, 'half of it')
  ctx.publish('news', { n: 1 }, { key: 'k', event_type: 't' })
  if (message.do === 'wait' || message.do === 'stubborn') {
    await new Promise((resolve, reject) => ctx.signal.addEventListener('abort', message.do === 'wait' ? () => reject(ctx.signal.reason) : resolve))
  }
  return { cancelled: ctx.cancelled }
}

export async function thread(message, ctx) {
  ctx.progress(undefined, 'in a thread')
  while (!ctx.cancelled) await new Promise((resolve) => setTimeout(resolve, 20))
  throw new Error('stopped')
}
