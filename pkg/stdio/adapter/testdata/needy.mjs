import 'a-library-that-is-not-there'
export const handle = () => {}
