export async function handle(message) {
  const { do: what } = message.content
  console.log('printed by node')
  if (what === 'fail') throw Object.assign(new Error('refused'), { code: 'ECONNREFUSED' })
  if (what === 'slow down') throw Object.assign(new Error('busy'), { error_class: 'rate_limited', retry_after: 7 })
  return { echo: message.content }
}
