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
