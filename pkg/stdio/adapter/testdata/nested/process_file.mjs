export const handle = () => ({ nested: true })
