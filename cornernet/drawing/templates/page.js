'use strict';
for (const table of document.querySelectorAll('table.sortable')) {
  const heads = [...table.tHead.rows[0].cells], body = table.tBodies[0], first = [...body.rows];
  const value = (row, at) => {
    const cell = row.cells[at];
    return 'sort' in cell.dataset ? Number(cell.dataset.sort) : cell.textContent.trim();
  };
  heads.forEach((head, at) => head.firstElementChild.addEventListener('click', () => {
    const now = head.getAttribute('aria-sort');
    const next = now === null ? 'descending' : now === 'descending' ? 'ascending' : null;
    heads.forEach(each => each.removeAttribute('aria-sort'));
    if (next === null) { body.append(...first); return; }
    head.setAttribute('aria-sort', next);
    const sign = next === 'ascending' ? 1 : -1;
    const empty = x => x === '' || (typeof x === 'string' && /^not /.test(x));
    body.append(...[...first].sort((a, b) => {
      const x = value(a, at), y = value(b, at);
      if (empty(x) || empty(y)) return empty(x) - empty(y);
      if (typeof x === 'number' && typeof y === 'number') return sign * (x - y);
      return sign * String(x).localeCompare(String(y), 'en', {numeric: true});
    }));
  }));
}
const filter = document.getElementById('filter');
if (filter) {
  filter.addEventListener('change', () => {
    for (const part of document.querySelectorAll('[data-study]'))
      part.hidden = filter.value !== '' && part.dataset.study !== filter.value;
  });
}
