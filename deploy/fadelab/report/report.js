// Sorts a table by the column whose heading is clicked; again for the other direction.
for (const button of document.querySelectorAll("th button")) {
  button.addEventListener("click", () => {
    const heading = button.parentElement;
    const table = heading.closest("table");
    const column = heading.cellIndex;
    const descending = heading.getAttribute("aria-sort") !== "descending";
    const key = (row) => row.cells[column].dataset.key ?? row.cells[column].textContent;
    const numeric = (text) => text === "-inf" ? -Infinity : Number(text);
    const compare = (a, b) => {
      const [x, y] = [key(a), key(b)];
      const isText = row => row.cells[column].dataset.key === undefined;
      return isText(a) || isText(b) ? x.localeCompare(y, undefined, { numeric: true }) : numeric(x) - numeric(y);
    };
    const rows = [...table.tBodies[0].rows].sort((a, b) => descending ? compare(b, a) : compare(a, b));
    for (const other of table.querySelectorAll("th")) other.removeAttribute("aria-sort");
    heading.setAttribute("aria-sort", descending ? "descending" : "ascending");
    table.tBodies[0].append(...rows);
  });
}
