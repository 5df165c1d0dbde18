// Runs one JavaScript function as an agent: one JSON object a line.
//
//     node adapter.mjs --dir DIRECTORY --module MODULE --function FUNCTION [--in FD] [--out FD]
//
// The function gets the task's payload, an object, and returns an object or a promise of one; nothing and other values
// are wrapped. One that takes a second argument gets a Context in it: handle(message, ctx); when the task takes longer than
// its timeout, or somebody cancels it, ctx.cancelled is true and ctx.signal, an AbortSignal, is aborted. The module may be
// ESM or CommonJS. The supervisor gives the protocol descriptors of its own (--in, --out)
// and points 1 at 2, so that whatever the agent's code prints ends in its log.
//
// An error may carry error_class (say how to treat it) and retry_after (seconds).

import { existsSync, readdirSync, realpathSync, statSync, writeSync } from 'node:fs'
import { Socket } from 'node:net'
import { join, extname } from 'node:path'
import { pathToFileURL } from 'node:url'
import { parseArgs } from 'node:util'

const PROTOCOL = 1
const CAPABILITIES = ['cancel', 'progress', 'publish']
const TRACEBACK_LIMIT = 16 * 1024
const LINE_ID = /^\s*\{"id":"([A-Za-z0-9-]+)"/
const EXTENSIONS = ['.mjs', '.js', '.cjs', '.ts', '.mts', '.cts']
const TIMEOUT_CODES = new Set(['ETIMEDOUT', 'ESOCKETTIMEDOUT', 'UND_ERR_CONNECT_TIMEOUT', 'UND_ERR_HEADERS_TIMEOUT', 'UND_ERR_BODY_TIMEOUT'])
const NETWORK_CODES = new Set(['ECONNREFUSED', 'ECONNRESET', 'ECONNABORTED', 'EPIPE', 'EHOSTUNREACH', 'ENETUNREACH', 'ENETDOWN', 'ENOTFOUND', 'EAI_AGAIN', 'UND_ERR_SOCKET'])
const RESOURCE_CODES = new Set(['ENOMEM', 'ENOSPC', 'EMFILE', 'ENFILE'])

class StartupError extends Error {
  constructor(kind, message) {
    super(message)
    this.kind = kind
  }
}

const isFile = (path) => existsSync(path) && statSync(path).isFile()

// find gives the module's file. A module may be named with dots as in Python, with slashes, and without its extension.
function find(dir, name) {
  for (const path of new Set([name, name.replaceAll('.', '/')])) {
    const base = join(dir, path)
    const file = [extname(path) ? base : '', ...EXTENSIONS.map((e) => base + e), ...EXTENSIONS.map((e) => join(base, 'index' + e))].find((f) => f && isFile(f))
    if (file) return realpathSync(file)
  }
  const found = readdirSync(dir).filter((f) => EXTENSIONS.includes(extname(f))).sort()
  throw new StartupError('AgentCallbackNotFoundError', `the module ${name} isn't in ${dir}; JavaScript files there: ${found.join(', ') || 'none'}`)
}

async function load(dir, moduleName, functionName) {
  const file = find(dir, moduleName)
  let module
  try {
    module = await import(pathToFileURL(file))
  } catch (e) {
    console.error(e)
    const missing = e?.code === 'ERR_MODULE_NOT_FOUND' || e?.code === 'MODULE_NOT_FOUND'
    throw new StartupError(missing ? 'AgentDependencyError' : 'AgentStartupError', `importing ${moduleName}: ${e?.message ?? e}`)
  }
  const lookUp = (root) => functionName.split('.').reduce((v, part) => v?.[part], root)
  const callback = lookUp(module) ?? lookUp(module.default)
  if (typeof callback !== 'function') {
    const found = Object.entries({ ...module.default, ...module }).filter(([, v]) => typeof v === 'function').map(([n]) => n).sort()
    throw new StartupError('AgentCallbackNotFoundError', `the callback ${functionName} isn't exported by ${moduleName}; functions there: ${found.join(', ') || 'none'}`)
  }
  return callback
}

// errorClass maps only what can mean nothing else; undefined leaves it to the supervisor.
function errorClass(e) {
  const named = e?.error_class ?? e?.errorClass
  if (typeof named === 'string') return named
  for (const x of [e, e?.cause]) {
    if (x?.name === 'TimeoutError' || TIMEOUT_CODES.has(x?.code)) return 'timeout'
    if (NETWORK_CODES.has(x?.code)) return 'network'
    if (RESOURCE_CODES.has(x?.code)) return 'resource'
  }
  return undefined
}

function failure(id, e) {
  const answer = { id, status: 'error', error: String(e?.message || e?.name || e), error_type: e?.name ?? typeof e, error_class: errorClass(e) }
  if (typeof e?.stack === 'string') answer.traceback = e.stack.slice(0, TRACEBACK_LIMIT)
  const retryAfter = e?.retry_after ?? e?.retryAfter
  if (typeof retryAfter === 'number' || typeof retryAfter === 'string') answer.retry_after = retryAfter
  return JSON.stringify(answer)
}

const isRecord = (v) => typeof v === 'object' && v !== null && !Array.isArray(v)

function success(id, result) {
  if (result === undefined || result === null) result = { status: 'completed' }
  else if (!isRecord(result)) result = { status: 'completed', data: result }
  try {
    return JSON.stringify({ id, status: 'ok', result })
  } catch (e) {
    // The work is done, and running it again would give the same.
    return JSON.stringify({ id, status: 'error', error: `the result can't be written as JSON: ${e.message}`, error_type: e.name, error_class: 'permanent' })
  }
}

// write writes everything. The supervisor always reads, so this waits for moments only.
function write(fd, text) {
  let data = Buffer.from(text)
  while (data.length > 0) {
    try {
      data = data.subarray(writeSync(fd, data))
    } catch (e) {
      if (e.code !== 'EAGAIN') throw e
    }
  }
}

const PUBLISH_OPTIONS = new Set(['key', 'event_id', 'event_type', 'correlation_id', 'tenant_id', 'reply_to', 'webhook'])

// Context is what a function can do about the task that it runs.
class Context {
  #send
  #id
  #abort = new AbortController()

  constructor(send, id, payload) {
    this.#send = send
    this.#id = id
    const prefix = `[${payload?.task_id ?? ''}]`
    const line = (level) => (...args) => console.error(level, prefix, ...args)
    // log writes to standard error, which is the agent's log.
    this.log = { debug: line('DEBUG'), info: line('INFO'), warn: line('WARNING'), error: line('ERROR') }
  }

  // cancelled is true once the task has taken longer than its timeout, or somebody has cancelled it: end it soon, or its
  // process is ended.
  get cancelled() { return this.#abort.signal.aborted }

  // signal is aborted then: give it to fetch, timers and the like.
  get signal() { return this.#abort.signal }

  // progress says how far the task has come: fraction from 0 to 1, and a message for people. Each may be left out. Where
  // the agent has no request_timeout, its reclaim_idle_ms counts from here.
  progress(fraction, message) {
    this.#send({ type: 'progress', id: this.#id, fraction: fraction ?? null, message: message == null ? '' : String(message) })
  }

  // publish publishes an event together with the task's outcome, in one transaction, or not at all if the task fails.
  // options may be key, event_id, event_type, correlation_id, tenant_id, reply_to, webhook.
  publish(topic, content, options = {}) {
    const unknown = Object.keys(options).filter((k) => !PUBLISH_OPTIONS.has(k))
    if (unknown.length > 0) throw new TypeError(`publish() got unexpected options: ${unknown.sort().join(', ')}`)
    this.#send({ ...options, type: 'publish', id: this.#id, topic, content })
  }

  abort() { this.#abort.abort(Object.assign(new Error('the task was cancelled'), { name: 'AbortError' })) }
}

class Agent {
  constructor(callback, out) {
    this.callback = callback
    this.running = new Map() // contexts by message id
    this.out = out
    this.answers = []
    this.parts = []
    this.total = 0
    this.failed = 0
    this.pinged = process.hrtime.bigint()
    this.cpu = process.cpuUsage()
  }

  data(chunk) {
    let from = 0
    for (let at = chunk.indexOf(10); at >= 0; at = chunk.indexOf(10, from)) {
      this.parts.push(chunk.subarray(from, at))
      const line = (this.parts.length === 1 ? this.parts[0] : Buffer.concat(this.parts)).toString()
      this.parts = []
      from = at + 1
      if (line.trim()) this.line(line)
    }
    if (from < chunk.length) this.parts.push(chunk.subarray(from))
  }

  line(line) {
    let message
    try {
      message = JSON.parse(line)
    } catch (e) {
      const asked = LINE_ID.exec(line)
      return this.answer(JSON.stringify({ id: asked ? asked[1] : null, status: 'error', error: `Invalid JSON: ${e.message}`, error_type: e.name, error_class: 'invalid_input' }))
    }
    if (!isRecord(message)) return this.answer(JSON.stringify({ id: null, status: 'error', error: 'Invalid message: not an object' }))
    const id = message.id ?? null
    switch (message.type) {
      case 'task': return void this.run(id, message.payload)
      case 'cancel': return this.running.get(id)?.abort()
      case 'ping': return this.answer(JSON.stringify({ id, status: 'ok', result: this.pong() }))
      case 'shutdown':
        this.answer(JSON.stringify({ id: null, status: 'ok', result: { message: 'shutdown acknowledged' } }))
        return this.end()
      default: return this.answer(JSON.stringify({ id, status: 'error', error: `Unknown message type: ${message.type}` }))
    }
  }

  async run(id, payload) {
    this.total++
    const { callback } = this
    const context = new Context((message) => this.answer(JSON.stringify(message)), id, payload)
    this.running.set(id, context)
    let answer
    try {
      answer = success(id, await (callback.length >= 2 ? callback(payload, context) : callback(payload)))
    } catch (e) {
      this.failed++
      answer = failure(id, e)
    }
    this.running.delete(id)
    this.answer(answer)
  }

  pong() {
    const now = process.hrtime.bigint()
    const used = process.cpuUsage(this.cpu)
    const wall = Number(now - this.pinged) / 1000
    const cpu_percent = wall > 0 ? (100 * (used.user + used.system)) / wall : 0
    this.pinged = now
    this.cpu = process.cpuUsage()
    return { type: 'pong', protocol: PROTOCOL, capabilities: CAPABILITIES, health: {
      process_id: process.pid, uptime_seconds: process.uptime(), total_requests: this.total, failed_requests: this.failed,
      memory_mb: process.memoryUsage.rss() / 2 ** 20, cpu_percent } }
  }

  // answer lets the answers of one turn of the loop leave in one write.
  answer(text) {
    if (this.answers.length === 0) setImmediate(() => this.flush())
    this.answers.push(text)
  }

  flush() {
    if (this.answers.length === 0) return
    const text = this.answers.join('\n') + '\n'
    this.answers = []
    write(this.out, text)
  }

  end() {
    this.flush()
    process.exit(0)
  }
}

const { values: options } = parseArgs({ options: {
  dir: { type: 'string' }, module: { type: 'string' }, function: { type: 'string' },
  in: { type: 'string', default: '0' }, out: { type: 'string', default: '1' } } })
process.argv.splice(2)
process.on('SIGINT', () => {}) // a stop comes from the supervisor
const out = Number(options.out)
try {
  const agent = new Agent(await load(realpathSync(options.dir), options.module, options.function), out)
  const input = new Socket({ fd: Number(options.in), readable: true, writable: false })
  input.on('data', (chunk) => agent.data(chunk))
  input.on('close', () => agent.end())
  input.on('error', () => agent.end())
} catch (e) {
  if (!(e instanceof StartupError)) throw e
  write(out, JSON.stringify({ type: 'startup_error', status: 'error', error_type: e.kind, error: e.message }) + '\n')
  console.error(`${e.kind}: ${e.message}`)
  process.exitCode = 1
}
